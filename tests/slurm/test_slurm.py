"""On a real Slurm of three nodes: the scripts of slurm/, and jobs that are killed, cancelled and requeued."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.pools import write_arithmetic
from support.program import BIN, TOYS, start
from support.slurm_cluster import FINAL, HOME, NO_GPU, ONE_RANK, TWO_NODES
from support.small_run import assert_same

pytestmark = [pytest.mark.slurm, pytest.mark.e2e]
# It must still be at work when something happens to it: its verifier rests for as long as TOY_PAUSE_S says.
LONG = (
    "experiment=tiny", "pool=jsonl", "pool.held_out=24", "pool.verifier=toy_plugin.verifiers:unhurried", "clusters.n=6",
    "probe.fraction=0.15", "rollouts.k=4", "rollouts.chunk_questions=4", "sampler.n_questions=60", "loop.iterations=3",
    "evaluate.samples=4", "dpo.batch_pairs=8",
)  # fmt: skip
SHORT = (
    "experiment=tiny", "pool.n=240", "pool.held_out=24", "clusters.n=6", "probe.fraction=0.15", "rollouts.k=4",
    "sampler.n_questions=60", "loop.iterations=1", "dpo.batch_pairs=8",
)  # fmt: skip


def git(*words):
    return subprocess.run(["git", *words], cwd=HOME, capture_output=True, text=True, check=True).stdout.strip()


def test_two_nodes_are_one_world_and_train_together(slurm):
    done = slurm.run(
        "srun", "-N2", "-n4", "--ntasks-per-node=2", "--mem-per-cpu=500M", slurm.env["SAIDPO_PYTHON"], "-m", "mpi4py",
        "tests/slurm/two_nodes.py",
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert facts["size"] == 4 and facts["local_size"] == 2 and facts["nodes"] == ["n1", "n1", "n2", "n2"]
    assert sorted(index for items in facts["claimed"] for index in items) == list(range(50))
    assert facts["gradients"] == [[10.0] * 8] * 4 and not facts["alive"]
    assert max(facts["idle"]) < 0.05  # of a core, while they waited for root


def test_ranks_that_do_not_see_each_other_are_refused(slurm):
    done = slurm.run(
        "srun", "-N2", "-n2", "--mpi=none", "--mem-per-cpu=500M", slurm.env["SAIDPO_PYTHON"], "-m", "mpi4py", "-m",
        "hpc_saidpo", *SHORT, f"run.root={slurm.folder}", "run.name=singletons", check=False,
    )  # fmt: skip
    assert done.returncode != 0
    # The first task prints it. The other one does too if the first is slow to start: they cannot communicate.
    assert 1 <= done.stderr.count("2 tasks were started that do not see each other") <= 2
    assert "use srun --mpi=pmi2" in done.stderr and not (slurm.folder / "singletons").exists()


def test_a_job_survives_a_time_limit_a_killed_rank_and_a_dead_node(slurm, monkeypatch):
    """Its result is that of an uninterrupted run."""
    run = slurm.folder / "troubled"
    sweep = slurm.folder / "troubled.txt"
    sweep.write_text("# one run\nrun.name=troubled\n")
    write_arithmetic(slurm.folder / "pool.jsonl", n=264)
    arguments = (*LONG, f"pool.path={slurm.folder / 'pool.jsonl'}", f"run.root={slurm.folder}")
    monkeypatch.setitem(slurm.env, "TOY_PAUSE_S", "0.1")
    monkeypatch.setitem(slurm.env, "SAIDPO_PYTHONPATH", str(TOYS))
    job = slurm.sweep(sweep, *arguments, steps="run", **TWO_NODES)["run"] + "_0"
    slurm.until(lambda: any(run.rglob("DONE")), "the first finished stage")
    # From now on less than 5 minutes are left, so Slurm warns the job at its next check, within 30 s.
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=5")
    slurm.until(lambda: slurm.restarts(job) == 1, "the requeue before the time limit")
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    log = slurm.log("saidpo-run-*")
    assert "stopped by SIGUSR1: all finished work is stored" in log, log
    kept = {p: p.read_bytes() for p in run.rglob("DONE")}
    assert kept and not (run / "lock").exists()

    slurm.until(lambda: slurm.state(job) == "RUNNING" and slurm.ranks_on("n2"), "ranks")
    os.kill(slurm.ranks_on("n2")[0], signal.SIGKILL)
    slurm.until(lambda: slurm.state(job) == "FAILED", "the end of a job with a killed rank", 60)
    slurm.until(lambda: not slurm.ranks_on("n1") + slurm.ranks_on("n2"), "no rank left", 30)
    slurm.run("scontrol", "requeue", job)
    slurm.until(lambda: slurm.state(job) == "RUNNING" and (run / "lock").exists(), "the third start")
    slurm.run(HOME / "tools" / "local_slurm.sh", "kill-node", "n2")
    # The rank on n1 may notice it before Slurm does, and end the step. The job still resumes on other nodes.
    slurm.until(lambda: slurm.restarts(job) == 3, "the requeue after a node is dead")
    slurm.until(lambda: slurm.state(job) == "RUNNING" and slurm.ranks_on("n3"), "the fourth start, on the third node")
    assert slurm.wait(job) == {job: "COMPLETED"}, slurm.describe()
    assert slurm.restarts(job) == 3
    slurm.run(HOME / "tools" / "local_slurm.sh", "start-node", "n2")
    assert all(path.read_bytes() == content for path, content in kept.items())
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    whole = start(*arguments, "run.name=whole", ranks=2)
    assert whole.returncode == 0, whole.stderr
    assert_same(run, slurm.folder / "whole")


def test_five_tasks_two_at_a_time_of_which_some_are_preempted_and_one_is_cancelled(slurm, monkeypatch):
    """After the grace time of a preemption a task goes back into the queue and ends equal; a cancelled one does not."""
    monkeypatch.setitem(slurm.env, "SAIDPO_PYTHON", str(slurm.warm_python()))
    root, sweep = slurm.folder / "five", slurm.folder / "five.txt"
    sweep.write_text("# task 0 is the first line below\n\n" + "".join(f"run.name=task{i}\n" for i in range(5)))
    short = (*SHORT, "pool.held_out=0", "evaluate.benchmarks=[]", f"run.root={root}")
    job = slurm.sweep(sweep, *short, steps="run", at_once=2, **ONE_RANK)["run"]
    sweep.write_text("run.name=edited\n")  # a waiting array does not read it again
    slurm.until(lambda: any((root / name / "lock").exists() for name in ("task0", "task1")), "the first work")
    urgent = slurm.submit("--partition=urgent", "--exclusive", "--wrap=true", nodes=3, time=1)
    slurm.until(lambda: slurm.state(urgent) == "COMPLETED", "the urgent job")
    cancelled, most = root / "task3", 0

    def at_work():
        nonlocal most
        most = max(most, [facts["JobState"] for facts in slurm.jobs(job).values()].count("RUNNING"))
        return (cancelled / "lock").exists()

    slurm.until(at_work, "work of task 3")
    slurm.run("scancel", f"{job}_3")
    expected = {f"{job}_{i}": "CANCELLED" if i == 3 else "COMPLETED" for i in range(5)}
    assert slurm.wait(job) == expected, slurm.describe()
    assert most == 2
    assert {path.name for path in slurm.logs.glob(f"*-{job}_*")} == {f"saidpo-run-{job}_{i}.out" for i in range(5)}
    restarts = [slurm.restarts(f"{job}_{i}") for i in range(5)]
    assert 1 <= sum(restarts[:2]) <= 2 and restarts[2:] == [0, 0, 0], slurm.describe()
    assert "stopped by SIGTERM" in slurm.log(f"saidpo-run-{job}_{restarts.index(1)}.out")
    # The next start is not taken for a preempted one.
    assert slurm.jobs(f"{job}_{restarts.index(1)}")[f"{job}_{restarts.index(1)}"]["PreemptTime"] == "None"
    assert not (cancelled / "iter-000" / "DONE").exists() and not (root / "edited").exists()
    for name in ("task0", "task1"):
        assert_same(root / name, root / "task2")
    # The line of a task in submit.sh, with another --array, submits it again.
    (folder,) = (root / "slurm").iterdir()
    again = slurm.submit(folder / "run.sbatch", folder, array="3", **ONE_RANK)
    assert slurm.wait(again) == {f"{again}_3": "COMPLETED"}, slurm.describe()
    assert_same(cancelled, root / "task2")


def test_the_chain_of_a_sweep(slurm):
    """tools/submit.py: prepare, the runs, their evaluations, one report. Another sweep prepares at the same time."""
    root, sweep = slurm.folder / "sweep", slurm.folder / "two.txt"
    sweep.write_text("run.name=few clusters.n=2\nrun.name=many clusters.n=6\n")
    options = [f"{key.replace('-', '_')}={value}" for key, value in {**ONE_RANK, **NO_GPU}.items()]
    submitted = slurm.run(
        sys.executable, "tools/submit.py", sweep, *options, "report.mem=900M", "at_once=2", "--", *SHORT,
        f"run.root={root}", "--", "evaluate.samples=2",
    )  # fmt: skip
    jobs = dict(line.split() for line in submitted.stdout.splitlines())
    assert list(jobs) == ["prepare", "run", "evaluate", "report"]
    (folder,) = (root / "slurm").iterdir()
    # mpiexec starts the ranks of the second preparation.
    by_mpiexec = {"ntasks-per-node": 2, "steps": "prepare", "env.SAIDPO_LAUNCH": f"{BIN / 'mpiexec'} -launcher fork"}
    second = slurm.sweep(sweep, *SHORT, f"run.root={root}", **{**ONE_RANK, **by_mpiexec})["prepare"]

    def ended():
        # From the last step to the first: each step waits for the one before it, whose state is read after its own.
        facts = {step: slurm.jobs(job) for step, job in reversed(jobs.items())}
        begun = [step for step, tasks in facts.items() if any(f["JobState"] != "PENDING" for f in tasks.values())]
        assert "run" not in begun or facts["prepare"][jobs["prepare"]]["JobState"] == "COMPLETED"
        return facts["report"][jobs["report"]]["JobState"] in FINAL

    slurm.until(ended, "the report", 400)
    logs = {path.name: path.read_text() for path in (folder / "logs").iterdir()}
    assert slurm.wait(second) == {second: "COMPLETED"}, slurm.describe()
    starts = json.loads((root / "few" / "env.json").read_text())
    assert starts[0]["commit"].startswith(git("rev-parse", "HEAD")) and (folder / "code" / "hpc_saidpo").is_dir()
    for job in jobs.values():
        assert set(slurm.wait(job).values()) == {"COMPLETED"}, logs
    wanted = {f"saidpo-{step}-{jobs[step]}_{i}.out" for step in ("run", "evaluate") for i in range(2)}
    assert set(logs) == wanted | {f"saidpo-{step}-{jobs[step]}.out" for step in ("prepare", "report")}
    # One job prepared both cluster counts for the runs.
    assert [logs[f"saidpo-prepare-{jobs['prepare']}.out"].count(f" {n} clusters, ") for n in (2, 6)] == [1, 1]
    shared = [path.name.split("-")[0] for path in (root / ".shared").iterdir()]
    assert shared.count("clusters") == 2 and shared.count("embedding") == 1
    for name, n in (("few", 2), ("many", 6)):
        metrics = json.loads((root / name / "metrics.jsonl").read_text())
        assert len(metrics["cluster_weight"]) == n and metrics["pairs"] > 0
    table = list(csv.DictReader((root / "sweep" / "sweep.csv").open()))
    assert [(row["name"], row["clusters.n"], row["state"]) for row in table] == [
        ("few", "2", "complete"), ("many", "6", "complete"),
    ]  # fmt: skip
    evaluations = list(csv.DictReader((root / "sweep" / "evaluations.csv").open()))
    assert [row["name"] for row in evaluations] == ["few-0", "many-1"]
    assert all(0 < float(row["accuracy"]) < 1 and row["samples"] == "2" for row in evaluations)
    assert all(row["policy"].endswith("iter-000/policy/model") for row in evaluations)
    page = (root / "sweep" / "sweep.html").read_text()
    assert "<svg" in page and all(f"{name}/report.html" in page for name in ("few", "many"))
    seen = json.loads(start("status", str(root), "--json").stdout)
    assert {state["name"] for state in seen} >= {"few", "many"}
    compared = start("compare", str(root), "--baseline", "few", "--out", str(slurm.folder / "compared"))
    assert compared.returncode == 0 and "many" in compared.stdout, compared.stderr


def image_of_the_environment(folder):
    """A file as tools/setup.sh --tar makes one, of an environment that holds MPI and a pointer to this one only."""
    packages = folder / f"env/lib/python3.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (packages / "all.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (folder / "env/bin").mkdir()
    (folder / "env/bin/python").symlink_to(Path(sys.executable).resolve())
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", folder / "env")
    for part in [path for path in (Path(sys.prefix) / "lib").iterdir() if "mpi" in path.name]:
        (folder / "env/lib" / part.name).symlink_to(part)
    subprocess.run(["tar", "--dereference", "-cf", folder / "env.tar", "-C", folder / "env", "."], check=True)
    return folder / "env.tar"


def test_the_doctor_examines_both_nodes(slurm, tmp_path, monkeypatch):
    """For root every node of this cluster has a /dev/shm of its own: there it unpacks the environment."""
    report = slurm.folder / "doctor.json"
    if os.geteuid() == 0:
        monkeypatch.setitem(slurm.env, "SAIDPO_IMAGE", str(image_of_the_environment(tmp_path)))
        monkeypatch.setitem(slurm.env, "SAIDPO_LOCAL", "/dev/shm")
    job = slurm.submit(
        "tests/slurm/doctor.sbatch", "experiment=tiny", f"run.root={slurm.folder}", "--json", report, **TWO_NODES
    )
    assert slurm.wait(job) == {job: "COMPLETED"}, slurm.describe()
    findings = json.loads(report.read_text())
    assert {f["state"] for f in findings.values()} <= {"ok", "warning"}, findings
    assert "2 ranks" in findings["MPI"]["told"] and findings["ranks per node"]["told"] == "n1: 1, n2: 1"
    assert "gloo" in findings["all-reduce"]["told"] and "GB/s" in findings["all-reduce"]["told"]
    assert "min left; 3 iterations need about" in findings["time limit"]["told"]
    assert not list(slurm.folder.glob(".doctor-*"))
    if os.geteuid() == 0:
        assert f"/dev/shm/saidpo-0-{job}/bin/python" in slurm.log(f"*{job}*")
        left = slurm.run("srun", "-N2", "-n2", "--ntasks-per-node=1", "--mem-per-cpu=100M", "ls", "/dev/shm").stdout
        assert "saidpo" not in left


def test_dead_ranks_do_not_outlive_their_cluster(slurm):
    """After all the tests above no rank computes any more."""
    slurm.until(lambda: slurm.run("squeue", "-h").stdout == "", "an empty queue")
    assert not slurm.ranks_on("n1") + slurm.ranks_on("n2") + slurm.ranks_on("n3")
