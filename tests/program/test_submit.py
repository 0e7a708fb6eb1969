"""tools/submit.py, the sweep files, and the sbatch scripts as text; test_slurm.py runs them."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import jobs_of

from hpc_saidpo.cli import compose
from hpc_saidpo.errors import RunError

HOME = Path(__file__).parents[2]
SLURM = HOME / "slurm"
CLUSTERS = SLURM / "sweeps" / "clusters.txt"
specification = importlib.util.spec_from_file_location("submit", HOME / "tools" / "submit.py")
submit = importlib.util.module_from_spec(specification)
specification.loader.exec_module(submit)


def built(*overrides):
    return compose.from_overrides(["pool.path=p", "policy.path=m", *overrides])


def lines_of(name):
    """The lines of a sweep file as sets of words, without the names of their runs, which all differ."""
    lines = submit.read_sweep(SLURM / "sweeps" / f"{name}.txt")
    names = {word for line in lines for word in line if word.startswith("run.name=")}
    assert len(names) == len(lines)
    return {frozenset(word for word in line if word not in names) for line in lines}


@pytest.mark.parametrize("name", ["clusters", "probe", "rollouts", "proxies"])
def test_a_sweep_file_holds_the_runs_of_hydras_sweep_of_that_name(name):
    budget = {"pairs.budget=200"} if name == "proxies" else set()  # for a larger experiment than tiny
    jobs = jobs_of(name)
    assert lines_of(name) == {frozenset({*job, *budget} - {f"sweep={name}"}) for job in jobs}
    assert len(lines_of(name)) == len(jobs)
    assert all(built(*line).run.seed == 0 for line in lines_of(name) if "run.seed=0" in line)


@pytest.mark.parametrize("base", ["saidpo", "saidpo_history"])
def test_the_systems_are_the_one_line_systems_on_any_base(base):
    of_lines = [built(f"experiment={base}", *line) for line in lines_of("systems") if "run.seed=0" in line]
    of_hydra = [built(f"experiment={base}", *job) for job in jobs_of("systems", "run.seed=0")]
    assert len(of_lines) == len(of_hydra) == 6
    assert sorted(map(repr, of_lines)) == sorted(map(repr, of_hydra))
    for seed in "12":
        assert lines_of("systems") >= {
            frozenset(f"run.seed={seed}" if word == "run.seed=0" else word for word in line)
            for line in lines_of("systems") if "run.seed=0" in line
        }  # fmt: skip


@pytest.fixture
def dry(capsys):
    def run(*words):
        sweep, *rest = map(str, words)
        return submit.main([sweep, "--dry-run", *rest]), *capsys.readouterr()

    return run


GIVEN = ("--", "experiment=tiny", "run.root=/scratch/my runs", "--", "evaluate.samples=4")


def test_the_chain(dry):
    code, text, _ = dry(CLUSTERS, "partition=gpu", "nodes=2", "at_once=4", "evaluate.time=02:00:00",
                        "env.SAIDPO_MPI=pmix", *GIVEN)  # fmt: skip
    assert code == 0 and subprocess.run(["bash", "-n", "-c", text]).returncode == 0
    calls = {m[1]: shlex.split(m[2]) for m in re.finditer(r"^(\w+)=\$\(sbatch --parsable (.*)\)$", text, re.M)}
    assert list(calls) == ["prepare", "run", "evaluate", "report"]
    assert all("--partition=gpu" in call for call in calls.values())
    assert "--nodes=2" in calls["run"] and "--nodes=2" not in calls["report"]
    assert "--array=0-14%4" in calls["run"] and "--array=0-14%4" in calls["evaluate"]
    assert "--time=02:00:00" in calls["evaluate"] and "--time=02:00:00" not in calls["run"]
    assert "--dependency=afterok:$prepare" in calls["run"] and "--dependency=aftercorr:$run" in calls["evaluate"]
    assert "--dependency=afterany:$evaluate" in calls["report"]
    assert all("--kill-on-invalid-dep=yes" in calls[step] for step in ("run", "evaluate", "report"))
    assert calls["prepare"][-3:] == ["experiment=tiny", "run.root=/scratch/my runs", "clusters.n=50,100,150,200,250"]
    assert calls["run"][-4:] == ["slurm/run.sbatch", str(CLUSTERS), "experiment=tiny", "run.root=/scratch/my runs"]
    assert calls["evaluate"][-1] == "evaluate.samples=4" and calls["report"][-1] == "/scratch/my runs"
    assert "export SAIDPO_MPI=pmix" in text and "mkdir -p '/scratch/my runs/slurm'" in text


def test_some_steps_only(dry):
    code, text, _ = dry(CLUSTERS, "steps=run,report", *GIVEN)
    assert code == 0 and re.findall(r"slurm/(\w+).sbatch", text) == ["run", "report"]
    assert '--dependency=afterany:"$run"' in text


@pytest.mark.parametrize(
    "words, says",
    [
        (("partion=gpu",), ["'partion=gpu'", "did you mean 'partition'?", "cpus_per_task", "at_once"]),
        (("runn.time=1",), ["'runn' is no step", "prepare, run, evaluate, report, env"]),
        (("env.SAIDPO_MPY=x",), ["did you mean 'SAIDPO_MPI'?"]),
        (("steps=run,eval",), ["there is no eval", "evaluate"]),
        (("gpu",), ["'gpu' is no NAME=VALUE"]),
        (("time=00:05:00",), ["time=00:05:00", "300 s"]),
        (("--", "clusters.nn=3"), ["array task 0", "run.name=clusters-050-seed-0", "did you mean 'clusters.n'?"]),
        (("--", "experiment=tiny", "rollouts.k=1"), ["array task 0", "rollouts.k", "greater than or equal to 2"]),
        (("--", "experiment=tiny", "--", "evaluate.sample=3"), ["did you mean 'evaluate.samples'?"]),
        (("--", "experiment=nothing"), ["experiment/nothing"]),
    ],
)
def test_a_typo_is_told_before_anything_is_submitted(dry, words, says):
    code, text, told = dry(CLUSTERS, *words)
    assert code == 2 and text == ""
    for part in says:
        assert part in told, told


def test_an_evaluation_that_training_may_have_seen_is_told(dry):
    given = ("--", "pool.path=p", "policy.path=m", "--", "evaluate.benchmarks=[math500,gsm8k]")
    code, _, said = dry(CLUSTERS, "steps=run,evaluate", *given)
    assert code == 0 and "'pool.benchmarks=[math500,gsm8k]'" in said
    _, _, said = dry(CLUSTERS, "steps=run,evaluate", *given[:3], "pool.benchmarks=[gsm8k,math500]", *given[3:])
    assert "are not compared" not in said and "'pool.benchmarks" not in said


def test_two_lines_may_not_write_one_run(dry, tmp_path):
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("# the same\nrun.seed=0\n\nrun.seed=1\n")
    code, _, told = dry(sweep, "--", "experiment=tiny")
    assert code == 2 and "array tasks 0 and 1" in told and "both called tiny" in told
    with pytest.raises(RunError, match=r"there are slurm/sweeps/clusters.txt, slurm/sweeps/probe.txt"):
        submit.read_sweep(tmp_path / "none.txt")


def test_a_failed_submission_cancels_those_before_it(dry, tmp_path):
    _, text, _ = dry(CLUSTERS, "--", "experiment=tiny", f"run.root={tmp_path}")
    for name, does in (("sbatch", '[[ "$*" != *evaluate.sbatch* ]] && echo 7'), ("scancel", 'echo "$@" > cancelled')):
        (tmp_path / name).write_text(f"#!/bin/bash\ncd {tmp_path}\n{does}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", text], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode != 0 and (tmp_path / "cancelled").read_text() == "7 7\n"


SCRIPTS = sorted(SLURM.glob("*.sbatch"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.stem)
def test_sbatch_scripts_are_short_and_do_nothing_themselves(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 40 and "set -euo pipefail" in text
    assert not re.search(r"^\s*(for|while|until|if)\b", text, re.M)
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if path.stem != "report":
        options = ("--requeue", "--open-mode=append", "--signal=B:USR1@", "--gpus-per-task=1", "--cpus-per-task=",
                   "--mem-per-cpu=", "--time=")  # fmt: skip
        assert all(f"#SBATCH {option}" in text for option in options)
    assert ("%A_%a" in text) == (path.stem in ("run", "evaluate"))


def in_env(script, **variables):
    """Run a line of bash that has sourced slurm/env.sh."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"source slurm/env.sh; {script}"], cwd=HOME, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "SAIDPO_PYTHON": sys.executable, **variables},
    )  # fmt: skip


def test_the_line_of_a_task(tmp_path):
    sweep = tmp_path / "s.txt"
    sweep.write_text("# comment\na=1 b=[x,y]\n\n  # another\nc=2\n")
    assert in_env(f"line {sweep}", SLURM_ARRAY_TASK_ID="1").stdout == "c=2\n"
    assert in_env(f'read -ra w <<<"$(line {sweep})"; echo "${{#w[@]}} ${{w[1]}}"').stdout == "2 b=[x,y]\n"
    beyond = in_env(f"of=$(line {sweep}); echo never", SLURM_ARRAY_TASK_ID="2")
    assert beyond.returncode == 2 and "no line for array task 2" in beyond.stderr and beyond.stdout == ""


def test_the_last_value_of_a_key():
    assert in_env("value run.root runs a=1 run.root=/x run.root='/y z' run_root=/no").stdout == "/y z\n"
    assert in_env("value run.root runs").stdout == "runs\n"


def test_env_without_a_python_says_so():
    done = in_env("true", SAIDPO_PYTHON="/no/python")
    assert done.returncode == 2 and "no Python at /no/python" in done.stderr and "tools/setup.sh" in done.stderr
    assert in_env('echo "$HF_HOME $HF_HUB_OFFLINE"', SAIDPO_BUNDLE="/b").stdout == "/b/huggingface 1\n"
    inside = in_env('echo "${python[@]}"', SAIDPO_CONTAINER="/x.sif", SAIDPO_BIND="/data")
    assert inside.stdout.startswith("apptainer exec --bind") or inside.stdout.startswith("apptainer exec --nv --bind")
