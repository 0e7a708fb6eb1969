"""tools/submit.py, the sweeps of conf/sweep, and the sbatch scripts as text; test_slurm.py runs them."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import submit
import yaml
from submit_freeze import copy_code, freeze, write
from submit_options import SBATCH
from submit_sweep import Composer, Sweep, read_sweep
from support.program import jobs_of

from hpc_saidpo.cli import compose
from hpc_saidpo.errors import RunError
from hpc_saidpo.settings.keys import options_of
from hpc_saidpo.settings.whole import Evaluation

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
    "systems": ["frontier_error-seed-0", "saidpo-seed-0", "frontier-seed-0", "idpo-seed-0", "no_difficulty-seed-0",
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


def test_the_systems_are_the_one_line_systems_on_any_base():
    common = ["pool.path=p", "policy.path=m", "experiment=saidpo", "run.seed=0"]
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
    spaced = read_sweep("rollouts", ["rollouts.prompt.system='a b',c", "rollouts.k=8"])
    assert spaced.lines[0][1] == "rollouts.prompt.system='a b'"


def test_settings_composed_together_are_those_composed_alone():
    composer = Composer()
    for overrides in (
        ["experiment=tiny", "run.seed=3", "difficulty.order=[steps,tokens]", "run.name='a b'", "pairs.budget=null"],
        ["experiment=tiny", "run.seed=4", "evaluate.known.math500.samples=2", "rollouts.stop=['\n\n']"],
        ["experiment=[tiny,idpo]", "+experiment@_global_=no_clusters", "dpo=lora", "dpo.lora.rank=4"],
        ["experiment=demo", "rollouts/prompt=chat", "rollouts.k=4", "evaluate.benchmarks=[held_out,x.jsonl]"],
        ["pool=gsm8k", "pool.path=[p,q]", "policy.path=m", "run.name=x", "pool.columns.answer=a"],
    ):  # fmt: skip
        assert repr(composer.settings(overrides)[0]) == repr(compose.from_overrides(overrides))
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


GIVEN = ("--", "experiment=tiny", "run.root=/scratch/my_runs", "--", "evaluate.samples=4")


def calls_of(text):
    """The words of each call of sbatch in a submission, by step."""
    return {m[1]: shlex.split(m[2]) for m in re.finditer(r"^(\w+)=\$\(sbatch --parsable (.*)\)$", text, re.M)}


def scripts_of(text):
    """The job scripts of a submission, by step."""
    return dict(re.findall(r"^# \S+/(\w+)\.sbatch:\n(.*?)(?=^# /|\Z)", text, re.M | re.S))


def test_the_chain(dry):
    code, text, _ = dry(CLUSTERS, "partition=gpu", "nodes=2", "at_once=4", "evaluate.time=02:00:00",
                        "env.SAIDPO_MPI=pmix", *GIVEN)  # fmt: skip
    assert code == 0 and subprocess.run(["bash", "-n", "-c", text]).returncode == 0
    calls = calls_of(text)
    assert list(calls) == ["prepare", "run", "evaluate", "report"]
    assert all("--partition=gpu" in call for call in calls.values())
    assert "--nodes=2" in calls["run"] and "--nodes=2" not in calls["report"]
    assert "--array=0-14%4" in calls["run"] and "--array=0-14%4" in calls["evaluate"]
    assert "--time=02:00:00" in calls["evaluate"] and "--time=02:00:00" not in calls["run"]
    assert "--dependency=afterok:$prepare" in calls["run"] and "--dependency=aftercorr:$run" in calls["evaluate"]
    assert "--dependency=afterany:$evaluate" in calls["report"]
    assert all("--kill-on-invalid-dep=yes" in calls[step] for step in ("run", "evaluate", "report"))
    assert calls["run"][-2:] == ["$folder/run.sbatch", "$folder"] and calls["report"][-1] == "/scratch/my_runs"
    (folder,) = re.findall(r"^folder=(/scratch/my_runs/slurm/clusters-\d{8}-\d{6})$", text, re.M)
    names = re.findall(rf"^# {folder}/(\w+)-\d+\.yaml: ", text, re.M)
    assert [names.count(kind) for kind in ("run", "evaluate", "prepare")] == [15, 15, 5]
    scripts = scripts_of(text)
    assert set(scripts) == set(calls)
    for step, script in scripts.items():
        assert "export SAIDPO_MPI=pmix\n" in script and f"export SAIDPO_PYTHON={sys.executable}\n" in script, step


def test_some_steps_only(dry):
    code, text, _ = dry(CLUSTERS, "steps=run,report", *GIVEN)
    assert code == 0 and list(calls_of(text)) == ["run", "report"] == list(scripts_of(text))
    assert "--dependency=afterany:$run" in calls_of(text)["report"]


def test_options_are_dropped_replaced_and_combined(dry):
    _, text, _ = dry(CLUSTERS, "gpus_per_task=null", "run.gpus-per-node=a100:4", "exclusive=true", "mem=0",
                     "hold=false", "dependency=singleton", "evaluate.dependency=afterok:7", "array=3,5",
                     *GIVEN)  # fmt: skip
    calls, scripts = calls_of(text), scripts_of(text)
    assert not re.search("gpus-per-task|mem-per-cpu", "".join(scripts.values())) and "gpus-per-task" not in str(calls)
    assert "--gpus-per-node=a100:4" in calls["run"] and "--gpus-per-node=a100:4" not in calls["evaluate"]
    assert "--exclusive" in calls["run"] and "--exclusive" not in calls["report"] and "--hold" not in str(calls)
    assert "--mem=0" in calls["prepare"] and "#SBATCH --mem=4G" in scripts["report"]
    assert "--dependency=singleton" in calls["prepare"] and "singleton" not in str(calls["run"])
    assert "--dependency=aftercorr:$run,afterok:7" in calls["evaluate"]
    assert [any(word == "--array=3,5" for word in call) for call in calls.values()] == [False, True, True, False]


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="no Slurm")
def test_every_option_of_sbatch_is_known():
    """The manual page of the sbatch of this machine, where it is installed."""
    shown = subprocess.run(["man", "sbatch"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}).stdout
    names = {name.replace("-", "_") for name in re.findall(r"^ {7}(?:-\w, )?--([a-z0-9][\w-]+)", shown, re.M)}
    prints = {"help", "usage", "version", "parsable", "test_only", "verbose", "quiet", "wait", "wrap", "input",
              "ignore_pbs", "kill_on_invalid_dep"}  # fmt: skip
    assert names - prints <= set(SBATCH)


def test_the_ranks_that_have_no_work_are_told(dry):
    _, _, told = dry(CLUSTERS, "nodes=4", "ntasks_per_node=8", *GIVEN)
    assert re.search(r"32 ranks, but explore has \d+ chunks .*rollouts\.min_chunk_questions", told)
    _, _, told = dry(CLUSTERS, "nodes=1", "ntasks_per_node=2", *GIVEN)
    assert "chunks" not in told


@pytest.mark.parametrize(
    "words, says",
    [
        (("partion=gpu",), ["'partion=gpu'", "did you mean 'partition'?", "cpus_per_task", "at_once"]),
        (("runn.time=1",), ["'runn' is no step", "prepare, run, evaluate, report, env"]),
        (("env.SAIDPO_MPY=x",), ["did you mean 'SAIDPO_MPI'?"]),
        (("steps=run,eval",), ["there is no eval", "evaluate"]),
        (("gpu",), ["'gpu' is no NAME=VALUE"]),
        (("time=00:05:00",), ["time=00:05:00", "300 s"]),
        (("evaluate.time=4",), ["evaluate: time=4", "300 s"]),
        (("snapshot=maybe",), ["snapshot=maybe", "true or false"]),
        (("--", "clusters.nn=3"), ["array task 0", "run.name=clusters-050-seed-0", "did you mean 'clusters.n'?"]),
        (("--", "experiment=tiny", "rollouts.k=1"), ["array task 0", "rollouts.k", "greater than or equal to 2"]),
        (("--", "experiment=tiny", "--", "evaluate.sample=3"), ["did you mean 'evaluate.samples'?"]),
        (("--", "experiment=nothing"), ["experiment/nothing"]),
        (("--", "experiment=tiny", "run.root=${oc.env:NO_SUCH_VARIABLE}"), ["NO_SUCH_VARIABLE"]),
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


def prepared_by(*words):
    return freeze(read_sweep(words[0], words[1:]), [], "s").preparations


def test_every_value_that_changes_the_preparation_is_prepared_once():
    assert [config["clusters"]["n"] for config in prepared_by("systems", *TINY)] == [12, 1]
    (only,) = prepared_by("probe", *TINY)
    assert only["run"]["name"] == "prepare-s" and only["loop"]["stop_after"] == "prepare"


def test_two_lines_may_not_write_one_run(dry, tmp_path):
    sweep = tmp_path / "sweep.txt"
    sweep.write_text("# the same\nrun.seed=0\n\nrun.seed=1\n")
    code, _, told = dry(sweep, "--", "experiment=tiny")
    assert code == 2 and "array tasks 0 and 1" in told and "both called tiny" in told
    with pytest.raises(RunError, match=r"Sweeps of conf/sweep: clusters, clusters_small, probe"):
        read_sweep(str(tmp_path / "none.txt"), [])


ODD = "\ufeff# runs\r\n \t\r\n\t# two\r\nrun.name=a clusters.n=2\r\nrun.name=b\tclusters.n=3 run.seed=5 # five\r\n"


def test_a_file_of_lines(tmp_path):
    """Tabs, comments, line ends of Windows, a byte order mark."""
    (tmp_path / "s.txt").write_bytes(ODD.encode())
    lines = read_sweep(str(tmp_path / "s.txt"), TINY).lines
    assert lines == [["run.name=a", "clusters.n=2"], ["run.name=b", "clusters.n=3", "run.seed=5"]]
    (tmp_path / "s.txt").write_text("\t# nothing\n")
    with pytest.raises(RunError, match="no line"):
        read_sweep(str(tmp_path / "s.txt"), TINY)


@pytest.mark.parametrize("root", ["~/x", "${oc.env:HOME}/x", "x"])
def test_roots_and_names_are_written_whole(root, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.txt").write_text("run.name=n${run.seed} run.seed=7\n")
    frozen = freeze(read_sweep("s.txt", [*TINY, f"run.root={root}"]), ["evaluate.samples=2"], "s")
    assert frozen.root == tmp_path / "x"
    assert frozen.runs[0]["run"]["root"] == str(tmp_path / "x") and frozen.runs[0]["run"]["name"] == "n7"
    (evaluation,) = frozen.evaluations
    assert evaluation["policy"]["path"] == str(tmp_path / "x" / "n7") and evaluation["evaluate"]["samples"] == 2
    assert evaluation["run"]["root"] == str(tmp_path / "x" / "evaluate") and evaluation["run"]["name"] == "n7-0"


def test_the_runs_of_a_sweep_have_one_root(tmp_path):
    (tmp_path / "s.txt").write_text("run.name=a run.root=/x\nrun.name=b run.root=/y\n")
    with pytest.raises(RunError, match=r"array task 1 .*run\.root=/y, array task 0 has run\.root=/x"):
        freeze(read_sweep(str(tmp_path / "s.txt"), TINY), [], "s")


TEXTS = ["a${b}c", r"\${x}", r"\\${x}", r"a\b", "${", "$", "\n\n", "", "null", "3", "é"]


def test_a_configuration_in_a_file_has_the_values_that_were_composed(tmp_path):
    """Texts that look like interpolations, numbers or nothing keep their characters."""
    frozen = freeze(Sweep("s", [["run.name=a"]], [*TINY, "evaluate.benchmarks=[held_out]"]), [], "s")
    write(tmp_path / "s", frozen, {"submit.sh": "true\n"})
    plain = compose.read_file(tmp_path / "s" / "run-0.yaml")
    settings, again = compose.build(compose.as_composed(plain))
    assert repr(settings).replace(str(frozen.root), "runs") == repr(frozen.settings[0]) and again == frozen.runs[0]
    for text in TEXTS:
        given = {**plain, "run": {**plain["run"], "root": "x" + text}}
        assert compose.build(compose.as_composed(given))[0].run.root == "x" + text
    evaluation = compose.read_file(tmp_path / "s" / "evaluate-0.yaml")
    assert compose.build(compose.as_composed(evaluation), Evaluation)[0].run.name == "a-0"
    for wrong in ("- 1\n", "run: 3\n", "a: [\n"):
        (tmp_path / "wrong.yaml").write_text(wrong)
        with pytest.raises(RunError, match=r"wrong\.yaml"):
            compose.read_file(tmp_path / "wrong.yaml")


def test_the_copy_of_the_code_is_the_checkout_as_it_is_now(tmp_path):
    home, target = tmp_path / "home", tmp_path / "code"
    files = {"hpc_saidpo/a.py": "1", "mine.py": "2", "data.bin": "3", "tests/t.py": "4", ".venv/x.py": "5"}
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    (home / ".gitignore").write_text(".venv/\n")
    with pytest.raises(RunError, match="no git checkout"):
        copy_code(home, target)
    commands = ("init -q", "add hpc_saidpo tests .gitignore", "-c user.name=a -c user.email=b commit -qm one")
    for words in commands:
        subprocess.run(["git", "-C", home, *words.split()], check=True)
    (home / "hpc_saidpo" / "a.py").write_text("changed")
    copy_code(home, target)
    copied = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert copied == {"hpc_saidpo/a.py", "mine.py", ".gitignore", ".commit"}
    assert (target / "hpc_saidpo" / "a.py").read_text() == "changed"
    assert re.fullmatch(r"[0-9a-f]{40}-dirty\n", (target / ".commit").read_text())


def submitted(folder, sbatch, *words):
    """Submit with programs of the names sbatch and scancel."""
    for name, does in (("sbatch", sbatch), ("scancel", 'echo "$@" > cancelled')):
        (folder / name).write_text(f"#!/bin/bash\ncd {folder}\n{does}\n")
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    line = [sys.executable, HOME / "tools" / "submit.py", *words, f"run.root={folder / 'runs'}"]
    return subprocess.run(line, env=environment, capture_output=True, text=True)


def test_a_failed_submission_cancels_those_before_it(tmp_path):
    done = submitted(tmp_path, '[[ "$*" != *evaluate.sbatch* ]] && echo 7', CLUSTERS, "--", "experiment=tiny")
    assert done.returncode != 0 and (tmp_path / "cancelled").read_text() == "7 7\n"


def test_a_submission_writes_all_that_its_jobs_read(tmp_path):
    (tmp_path / "s.txt").write_text("run.name=a\nrun.name=b run.seed=1\n")
    done = submitted(tmp_path, 'echo "$@" >> called; echo 7', tmp_path / "s.txt", "snapshot=false", "--", *TINY)
    assert done.returncode == 0 and done.stdout == "prepare 7\nrun 7\nevaluate 7\nreport 7\n", done.stderr
    (folder,) = (tmp_path / "runs" / "slurm").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert names == {"run-0.yaml", "run-1.yaml", "evaluate-0.yaml", "evaluate-1.yaml", "prepare-0.yaml", "logs",
                     "prepare.sbatch", "run.sbatch", "evaluate.sbatch", "report.sbatch", "submit.sh"}  # fmt: skip
    assert yaml.safe_load((folder / "run-1.yaml").read_text())["run"]["seed"] == 1
    assert f"export SAIDPO_HOME={HOME}\n" in (folder / "run.sbatch").read_text()
    assert f"{folder}/run.sbatch {folder}\n" in (tmp_path / "called").read_text()


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


def in_env(script, path="", **variables):
    """Run a line of bash that has sourced slurm/env.sh."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"source slurm/env.sh; {script}"], cwd=HOME, capture_output=True, text=True,
        env={"PATH": f"{path}:/usr/bin:/bin", "SAIDPO_PYTHON": sys.executable, **variables},
    )  # fmt: skip


STATES = {
    "running": "JobState=RUNNING PreemptTime=None",
    "preempted": "JobState=RUNNING PreemptTime=2026-01-01T00:00:00",
    "cancelled": "JobState=COMPLETING PreemptTime=None",
}


@pytest.mark.parametrize(
    "code, state, is_requeued",
    [
        (0, "preempted", False),
        (2, "preempted", False),  # wrong input: the next start would say it again
        (3, "running", False),
        (75, "running", True),  # a stop without Slurm's warning
        (75, "preempted", True),
        (75, "cancelled", False),
        (143, "preempted", True),
        (143, "cancelled", False),
        (1, "running", False),  # a bug, on nodes that are all alive
        (137, "dead node", True),
        (137, "running", False),
    ],
)
def test_the_job_goes_back_into_the_queue_if_it_can_continue(tmp_path, code, state, is_requeued):
    """With programs in place of srun and scontrol; test_slurm.py has the real ones."""
    facts = STATES.get(state, STATES["running"])
    programs = {
        "srun": f'[[ "$*" == *--mpi=none* ]] && exit {int(state == "dead node")}; exit {code}',
        "scontrol": f'[[ $1 == requeue ]] && echo "$2" > {tmp_path}/requeued || echo "{facts}"',
    }
    for name, does in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_NUM_NODES": "1"}
    done = in_env("launch run x", path=str(tmp_path), **variables)
    assert done.returncode == (0 if code == 3 else code), done.stderr
    assert (tmp_path / "requeued").exists() == is_requeued
    assert not is_requeued or (tmp_path / "requeued").read_text() == "7_2\n"
    assert ("ended early" in done.stdout) == (code == 3)


def test_signals_end_the_ranks_and_not_the_script(tmp_path):
    """Slurm's warning is passed on to the ranks; SIGTERM, which they get from Slurm themselves, is waited out."""
    (tmp_path / "srun").write_text(
        "#!/bin/bash\ntrap 'exit 75' USR1\ntouch started\nfor _ in {1..200}; do sleep 0.05; done\n"
    )
    (tmp_path / "scontrol").write_text('#!/bin/bash\necho "$1" >> called; echo JobState=RUNNING\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    script = "launch run x"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", f"source {SLURM}/env.sh; {script}"], cwd=tmp_path, stdout=subprocess.DEVNULL,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SAIDPO_PYTHON": sys.executable, "SLURM_JOB_ID": "9"},
    )  # fmt: skip
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGUSR1)
    assert process.wait(60) == 75
    assert (tmp_path / "called").read_text() == "-o\nrequeue\n"


def test_another_launcher_and_the_threads_of_a_rank(tmp_path):
    (tmp_path / "mpirun").write_text('#!/bin/bash\necho "$@"\n')
    (tmp_path / "mpirun").chmod(0o755)
    variables = {"SAIDPO_LAUNCH": "mpirun --bind-to none", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "9"}
    done = in_env("launch run x", path=str(tmp_path), **variables)
    assert f"--bind-to none -n 4 {sys.executable} -m mpi4py -m hpc_saidpo run x\n" in done.stdout, done.stderr
    shown = 'echo "${OMP_NUM_THREADS:-none} ${SRUN_CPUS_PER_TASK:-none}"'
    assert in_env(shown).stdout == "none none\n"
    assert in_env(shown, SLURM_CPUS_PER_TASK="8").stdout == "8 8\n"
    assert in_env(shown, SLURM_CPUS_PER_TASK="8", OMP_NUM_THREADS="2").stdout == "2 8\n"


def test_packages_of_loaded_modules_do_not_reach_the_ranks(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('of a module')")
    (tmp_path / "hpc_saidpo.py").write_text("raise SystemExit('of a module')")
    show = (
        '"${python[@]}" -c "import hpc_saidpo, sys; print(hpc_saidpo.__file__, [p for p in sys.path if \'mine\' in p])"'
    )
    done = in_env(show, PYTHONPATH=str(tmp_path), PYTHONHOME="/nowhere", SAIDPO_PYTHONPATH="/mine")
    assert done.stdout == f"{HOME / 'hpc_saidpo' / '__init__.py'} ['/mine']\n", done.stderr


def test_env_without_a_python_says_so():
    done = in_env("true", SAIDPO_PYTHON="/no/python")
    assert done.returncode == 2 and "no Python at /no/python" in done.stderr and "tools/setup.sh" in done.stderr
    assert in_env('echo "$HF_HOME $HF_HUB_OFFLINE"', SAIDPO_BUNDLE="/b").stdout == "/b/huggingface 1\n"
    inside = in_env('echo "${python[@]}"', SAIDPO_CONTAINER="/x.sif", SAIDPO_BIND="/data")
    assert inside.stdout.startswith("apptainer exec --bind") or inside.stdout.startswith("apptainer exec --nv --bind")


def test_a_job_unpacks_the_environment_on_each_node_and_removes_it(tmp_path):
    (tmp_path / "env/bin").mkdir(parents=True)
    (tmp_path / "env/bin/python").symlink_to(sys.executable)
    image = tmp_path / "env.tar"
    subprocess.run(["tar", "-cf", image, "-C", tmp_path / "env", "."], check=True)
    (tmp_path / "srun").write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do echo "$1"; shift; done; "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    local = tmp_path / "local"
    job = {"SLURM_JOB_ID": "9", "SLURM_JOB_NUM_NODES": "3", "SAIDPO_LOCAL": str(local)}
    done = in_env(
        '"${python[@]}" -c "import sys; print(sys.executable)"', str(tmp_path), SAIDPO_IMAGE=str(image), **job
    )
    assert done.returncode == 0, done.stderr
    assert f"{local}/saidpo-{os.getuid()}-9/bin/python\n" in done.stdout and not list(local.iterdir())
    assert done.stdout.count("--ntasks=3\n--ntasks-per-node=1") == 2
    image.write_text("not a tar file" * 99)
    done = in_env("echo started", str(tmp_path), SAIDPO_IMAGE=str(image), **job)
    assert done.returncode == 2 and "started" not in done.stdout and not list(local.iterdir())
    assert f"cannot unpack {image} to {local}/saidpo-{os.getuid()}-9 on every node" in done.stderr
