"""tools/submit.py, the sweeps of conf/sweep, and the sbatch scripts as text; test_slurm.py runs them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import submit
from submit_sweep import Composer, read_sweep
from support.program import jobs_of

from hpc_saidpo.cli import compose
from hpc_saidpo.errors import RunError
from hpc_saidpo.settings.keys import options_of

HOME = Path(__file__).parents[2]
SLURM = HOME / "slurm"
CLUSTERS = "clusters"
SWEEPS = options_of("sweep")
TINY = ["experiment=tiny"]
NAMES = {  # of each sweep's runs with run.seed=0
    "clusters": [f"clusters-{n:03}-seed-0" for n in (50, 100, 150, 200, 250)],
    "clusters_small": [f"clusters-{n:02}-seed-0" for n in (4, 8, 12, 16, 20)],
    "probe": ["probe-0.005-seed-0", "probe-0.010-seed-0", "probe-0.020-seed-0", "probe-0.050-seed-0"],
    "rollouts": ["k-04-seed-0", "k-08-seed-0", "k-16-seed-0"],
    "proxies": ["full-seed-0", "by_steps-seed-0", "by_tokens-seed-0", "by_seconds-seed-0"],
    "systems": ["saidpo_history-seed-0", "saidpo-seed-0", "frontier-seed-0", "idpo-seed-0", "no_difficulty-seed-0",
                "no_clusters-seed-0"],
}  # fmt: skip


def settings_of(overrides):
    """The settings that these overrides compose to, without the run's name."""
    return repr(compose.from_overrides([word for word in overrides if not word.startswith("run.name=")]))


@pytest.mark.parametrize("name", SWEEPS)
def test_the_lines_are_the_runs_of_hydras_sweep_of_that_name(name):
    lines, jobs = read_sweep(name, TINY).lines, jobs_of(name)
    plain = {frozenset({*job} - {f"sweep={name}"}) for job in jobs}
    assert {frozenset(w for w in line if not w.startswith(("run.name=", "pairs.share="))) for line in lines} == plain
    assert len(lines) == len(jobs) == len(plain)
    # The job of Hydra also has the plain values of the sweep's file.
    of_jobs = sorted(repr(compose.from_overrides([*TINY, *job])) for job in jobs if "run.seed=0" in job)
    assert sorted(settings_of([*TINY, *line]) for line in lines if "run.seed=0" in line) == of_jobs


@pytest.mark.parametrize("name", SWEEPS)
def test_the_names_of_the_runs_and_their_order(name):
    names = [line[0].removeprefix("run.name=") for line in read_sweep(name, TINY).lines]
    assert names == [each.replace("seed-0", f"seed-{seed}") for seed in (0, 1, 2) for each in NAMES[name]]


@pytest.mark.parametrize("base", ["saidpo", "saidpo_history"])
def test_the_systems_are_the_one_line_systems_on_any_base(base):
    common = ["pool.path=p", "policy.path=m", f"experiment={base}", "run.seed=0"]
    of_lines = [settings_of([*common, *line]) for line in read_sweep("systems", common).lines]
    of_hydra = [settings_of([*common, *job]) for job in jobs_of("systems", "run.seed=0")]
    assert len(of_lines) == len(of_hydra) == 6
    assert sorted(of_lines) == sorted(of_hydra)


def test_the_common_overrides_replace_and_extend_what_the_sweep_defines():
    sweep = read_sweep("proxies", [*TINY, "pairs.budget=200", "difficulty.order=[steps],[tokens]", "run.seed=4"])
    assert sweep.common == [*TINY, "pairs.budget=200", "run.seed=4"]
    assert sweep.lines == [["run.name=by_steps-seed-4", "difficulty.order=[steps]", "pairs.share=0.5"],
                           ["run.name=by_tokens-seed-4", "difficulty.order=[tokens]", "pairs.share=0.5"]]  # fmt: skip
    more = read_sweep("rollouts", [*TINY, "run.seed=0,1", "rollouts.k=8", "dpo.beta=0.1,0.2"])
    assert more.common == [*TINY, "rollouts.k=8"]
    assert more.lines[:2] == [["run.name=k-08-seed-0,dpo.beta=0.1", "dpo.beta=0.1", "run.seed=0"],
                              ["run.name=k-08-seed-0,dpo.beta=0.2", "dpo.beta=0.2", "run.seed=0"]]  # fmt: skip
    with pytest.raises(RunError, match="holds a blank"):
        read_sweep("rollouts", ["rollouts.prompt.system='a b',c"])


def test_settings_composed_together_are_those_composed_alone():
    composer = Composer()
    for overrides in (
        ["experiment=tiny", "run.seed=3", "difficulty.order=[steps,tokens]", "run.name='a b'", "pairs.budget=null"],
        ["experiment=tiny", "run.seed=4", "evaluate.known.math500.samples=2", "rollouts.stop=['\n\n']"],
        ["experiment=[tiny,idpo]", "+experiment@_global_=no_clusters", "dpo=lora", "dpo.lora.rank=4"],
        ["experiment=demo", "rollouts/prompt=chat", "rollouts.k=4", "evaluate.benchmarks=[held_out,x.jsonl]"],
        ["pool=gsm8k", "pool.path=[p,q]", "policy.path=m", "run.name=x", "pool.columns.answer=a"],
    ):  # fmt: skip
        assert repr(composer.settings(overrides)) == repr(compose.from_overrides(overrides))
    for wrong in (["experiment=tiny", "run.seed=1,2"], ["experiment=tiny", "evaluate.known.nothing.samples=2"],
                  ["experiment=tiny", "dpo.lr=fast"], ["policy.path=m"], ["experiment=none"]):  # fmt: skip
        with pytest.raises(RunError) as alone:
            compose.from_overrides(wrong)
        with pytest.raises(RunError) as together:
            composer.settings(wrong)
        assert str(alone.value) == str(together.value)


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
    (file,) = re.findall(r"^cat >'(/scratch/my runs/slurm/clusters-[0-9a-f]{8}\.txt)' <<'END'$", text, re.M)
    assert calls["run"][-4:] == ["slurm/run.sbatch", file, "experiment=tiny", "run.root=/scratch/my runs"]
    assert calls["evaluate"][-4:-1] == [file, "experiment=tiny", "run.root=/scratch/my runs"]
    assert text.count("run.name=clusters-") == 15
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


def test_every_value_that_changes_the_preparation_is_prepared(dry):
    _, text, _ = dry("systems", "--", "experiment=tiny")
    assert "slurm/prepare.sbatch experiment=tiny +experiment@_global_=saidpo_history,no_clusters)" in text
    _, text, _ = dry("probe", "--", "experiment=tiny")
    assert "slurm/prepare.sbatch experiment=tiny)" in text


def test_two_lines_may_not_write_one_run(dry, tmp_path):
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("# the same\nrun.seed=0\n\nrun.seed=1\n")
    code, _, told = dry(sweep, "--", "experiment=tiny")
    assert code == 2 and "array tasks 0 and 1" in told and "both called tiny" in told
    with pytest.raises(RunError, match=r"Sweeps of conf/sweep: clusters, clusters_small, probe"):
        read_sweep(str(tmp_path / "none.txt"), [])


def test_a_file_of_lines_stays_the_file_of_the_tasks(dry, tmp_path):
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("run.name=a clusters.n=2\nrun.name=b clusters.n=3 run.seed=5\n")
    code, text, _ = dry(sweep, "--", "experiment=tiny")
    assert code == 0 and f"slurm/run.sbatch {sweep} experiment=tiny)" in text and "cat >" not in text
    assert "slurm/prepare.sbatch experiment=tiny clusters.n=2,3)" in text


def submitted(text, folder, sbatch):
    """Run a submission with programs of the names sbatch and scancel."""
    for name, does in (("sbatch", sbatch), ("scancel", 'echo "$@" > cancelled')):
        (folder / name).write_text(f"#!/bin/bash\ncd {folder}\n{does}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    return subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)


def test_a_failed_submission_cancels_those_before_it(dry, tmp_path):
    _, text, _ = dry(CLUSTERS, "--", "experiment=tiny", f"run.root={tmp_path}")
    done = submitted(text, tmp_path, '[[ "$*" != *evaluate.sbatch* ]] && echo 7')
    assert done.returncode != 0 and (tmp_path / "cancelled").read_text() == "7 7\n"


def test_a_submission_writes_the_lines_that_its_tasks_read(dry, tmp_path):
    _, text, _ = dry("systems", "--", "experiment=tiny", f"run.root={tmp_path}")
    assert submitted(text, tmp_path, "echo 7").returncode == 0
    (file,) = (tmp_path / "slurm").glob("systems-*.txt")
    lines = read_sweep("systems", TINY).lines
    assert in_env(f"line {file}", SLURM_ARRAY_TASK_ID="7").stdout.split() == lines[7]
    assert read_sweep(str(file), TINY).lines == lines


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no Python of the system's")
def test_a_tool_started_with_another_python_continues_with_the_environments():
    for words, code in ((("--help",), 0), ((CLUSTERS, "--dry-run", "--", "clusters.nn=3"), 2)):
        bare = {"PATH": "/usr/bin:/bin"}
        done = subprocess.run([HOME / "tools" / "submit.py", *words], env=bare, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert "did you mean 'clusters.n'?" in done.stderr


def test_a_tool_without_an_environment_says_what_is_missing(tmp_path):
    for name in ("interpreter.py", "submit.py"):
        (tmp_path / "tools").mkdir(exist_ok=True)
        (tmp_path / "tools" / name).write_text((HOME / "tools" / name).read_text())
    line = [sys.executable, "-E", "-S", tmp_path / "tools" / "submit.py"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and "does not have h5py, hydra, numpy" in done.stderr, done.stderr
    assert "tools/setup.sh" in done.stderr and done.stderr.count("\n") == 1


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
