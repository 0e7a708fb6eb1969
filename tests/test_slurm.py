"""On a real Slurm of two nodes: the scripts of slurm/, and everything that happens to jobs."""

import json
import os
import signal
import subprocess

import pytest
from conftest import start
from slurm_cluster import HOME, ONE_RANK, TWO_NODES
from test_loop import assert_same

from hpc_saidpo.store.check import check

pytestmark = [pytest.mark.slurm, pytest.mark.e2e]
# A run of a minute or so: what happens to it must find it at work.
LONG = (
    "experiment=tiny", "pool.n=1200", "pool.held_out=24", "clusters.n=6", "rollouts.k=16", "rollouts.chunk_questions=4",
    "sampler.n_questions=300", "loop.iterations=2", "evaluate.samples=4", "dpo.epochs=4",
)  # fmt: skip
SHORT = (
    "experiment=tiny", "pool.n=240", "pool.held_out=24", "clusters.n=6", "probe.fraction=0.15", "rollouts.k=4",
    "sampler.n_questions=60", "loop.iterations=1", "dpo.batch_pairs=8",
)  # fmt: skip


def test_two_nodes_are_one_world_and_train_together(slurm):
    done = slurm.run(
        "srun", "-N2", "-n4", "--ntasks-per-node=2", "--mem-per-cpu=500M", slurm.env["SAIDPO_PYTHON"], "-m", "mpi4py",
        "tests/two_nodes.py",
    )  # fmt: skip
    facts = json.loads(done.stdout)
    assert facts["size"] == 4 and facts["local_size"] == 2 and facts["nodes"] == ["n1", "n1", "n2", "n2"]
    assert sorted(index for own in facts["claimed"] for index in own) == list(range(50))
    assert facts["gradients"] == [[10.0] * 8] * 4 and not facts["alive"]
    assert max(facts["idle"]) < 0.05  # of a core, while they waited for root


def test_ranks_that_do_not_see_each_other_are_refused(slurm):
    done = slurm.run(
        "srun", "-N2", "-n2", "--mpi=none", "--mem-per-cpu=500M", slurm.env["SAIDPO_PYTHON"], "-m", "mpi4py", "-m",
        "hpc_saidpo", *SHORT, f"run.root={slurm.folder}", "run.name=singletons", check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("2 tasks were started that do not see each other") == 1
    assert "use srun --mpi=pmi2" in done.stderr and not (slurm.folder / "singletons").exists()


def test_a_job_survives_all_that_happens_to_it(slurm):
    """Time limit, scontrol requeue, a killed rank, a dead node: the end is that of a run which was left alone."""
    run = slurm.folder / "troubled"
    sweep = slurm.folder / "troubled.txt"
    sweep.write_text("# one run\nrun.name=troubled\n")
    # The time limit is 5 minutes, its warning due 4 minutes before: in the first minute of the run.
    first = {**TWO_NODES, "time": 5, "signal": "B:USR1@240", "array": "0"}
    job = slurm.submit("slurm/run.sbatch", sweep, *LONG, f"run.root={slurm.folder}", **first) + "_0"
    slurm.until(lambda: slurm.restarts(job) == 1, "the requeue before the time limit", 150)
    slurm.run("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    told = slurm.log("saidpo-run-*")
    assert "stopped by SIGUSR1: what is finished is on disk" in told or "User defined signal 1" in told, told
    kept = {p: p.read_bytes() for p in run.rglob("DONE")}

    def more_done():  # the run has gone on
        return slurm.state(job) == "RUNNING" and len(list(run.rglob("DONE"))) > len(kept)

    slurm.until(more_done, "work after the first requeue")
    slurm.run("scontrol", "requeue", job)
    slurm.until(lambda: slurm.restarts(job) == 2, "the second requeue")
    slurm.until(lambda: slurm.state(job) == "RUNNING" and slurm.ranks_on("n2"), "ranks")
    os.kill(slurm.ranks_on("n2")[0], signal.SIGKILL)
    slurm.until(lambda: slurm.state(job) == "FAILED", "the end of a job with a killed rank", 30)
    slurm.until(lambda: not slurm.ranks_on("n1") + slurm.ranks_on("n2"), "no rank left", 30)
    slurm.run("scontrol", "requeue", job)
    slurm.until(lambda: slurm.state(job) == "RUNNING" and slurm.ranks_on("n2"), "ranks")
    slurm.run(HOME / "tools" / "local_slurm.sh", "kill-node", "n2")
    slurm.until(lambda: slurm.state(job) == "PENDING", "Slurm to notice that the node is dead", 90)
    slurm.run(HOME / "tools" / "local_slurm.sh", "start-node", "n2")
    assert slurm.wait(job) == {job: "COMPLETED"}, slurm.told()
    assert slurm.restarts(job) >= 3
    assert all(path.read_bytes() == content for path, content in kept.items())
    whole = start(*LONG, f"run.root={slurm.folder}", "run.name=whole", ranks=2)
    assert whole.returncode == 0, whole.stderr
    assert_same(run, slurm.folder / "whole")


def test_one_task_of_an_array_is_cancelled_and_sent_again(slurm):
    sweep = slurm.folder / "pair.txt"
    sweep.write_text("run.name=left\nrun.name=cancelled\n")
    arguments = (sweep, *LONG, "loop.iterations=1", f"run.root={slurm.folder}")
    job = slurm.submit("slurm/run.sbatch", *arguments, array="0-1", **ONE_RANK)
    cancelled = slurm.folder / "cancelled"
    slurm.until(lambda: list(cancelled.glob("iter-000/*/chunk-*.h5")), "work of the second task")
    slurm.run("scancel", f"{job}_1")
    assert slurm.wait(job) == {f"{job}_0": "COMPLETED", f"{job}_1": "CANCELLED"}
    assert not (cancelled / "iter-000" / "DONE").exists()
    again = slurm.submit("slurm/run.sbatch", *arguments, array="1", **ONE_RANK)
    assert slurm.wait(again) == {f"{again}_1": "COMPLETED"}, slurm.told()
    assert_same(cancelled, slurm.folder / "left")


def test_the_chain_of_a_sweep(slurm):
    """Prepare, five runs of which two at a time, their evaluation, a report; by tools/submit.py."""
    root, sweep = slurm.folder / "sweep", slurm.folder / "five.txt"
    sweep.write_text(
        "".join(f"run.name=n{n}-s{s} clusters.n={n} run.seed={s}\n" for n, s in ("20", "21", "40", "41", "60"))
    )
    options = [f"{key.replace('-', '_')}={value}" for key, value in ONE_RANK.items()]
    submitted = slurm.run(
        slurm.env["SAIDPO_PYTHON"], "tools/submit.py", sweep, *options, "report.mem=900M", "at_once=2", "--", *SHORT,
        f"run.root={root}", "--", "evaluate.samples=2",
    )  # fmt: skip
    prepare, run, evaluate, report = (line.split()[1] for line in submitted.stdout.splitlines())
    most = 0

    def ended():
        nonlocal most
        states = [facts["JobState"] for facts in slurm.jobs(run).values()]
        most = max(most, states.count("RUNNING"))
        if "RUNNING" in states:
            assert slurm.state(prepare) == "COMPLETED"
        return slurm.state(report) in ("COMPLETED", "FAILED", "CANCELLED")

    slurm.until(ended, "the report", 400)
    logs = {path.name: path.read_text() for path in (root / "slurm").iterdir()}
    for job in (prepare, run, evaluate, report):
        assert set(slurm.wait(job).values()) == {"COMPLETED"}, logs
    assert most == 2
    wanted = {f"saidpo-{step}-{job}_{i}.out" for step, job in (("run", run), ("evaluate", evaluate)) for i in range(5)}
    assert set(logs) == wanted | {f"saidpo-prepare-{prepare}.out", f"saidpo-report-{report}.out"}
    shared = [path.name.split("-")[0] for path in (root / ".shared").iterdir()]
    assert shared.count("clusters") == 3 and shared.count("embedding") == 1
    for n, s in ("20", "21", "40", "41", "60"):
        metrics = json.loads((root / f"n{n}-s{s}" / "metrics.jsonl").read_text())
        assert len(metrics["cluster_weight"]) == int(n) and metrics["pairs"] > 0
    evaluated = sorted(path.name for path in (root / "evaluate").iterdir() if not path.name.startswith("."))
    assert evaluated == ["n2-s0-0", "n2-s1-1", "n4-s0-2", "n4-s1-3", "n6-s0-4"]
    assert all((root / "evaluate" / name / "base" / "evaluate" / "held_out" / "DONE").exists() for name in evaluated)
    for name in ("sweep.csv", "evaluations.csv", "sweep.html", "sweep.png"):
        assert (root / "sweep" / name).stat().st_size > 0
    assert len((root / "sweep" / "sweep.csv").read_text().splitlines()) == 6


def test_hydra_sweeps_by_submitting_jobs_of_two_ranks(slurm):
    launcher = ("hydra/launcher=slurm", "hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=1",
                "hydra.launcher.gpus_per_task=null", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1",
                "hydra.launcher.timeout_min=30")  # fmt: skip
    root = slurm.folder / "submitit"
    shim = f"{HOME / 'tests' / 'bin'}:{slurm.env['PATH']}"  # sacct, which this cluster without accounting lacks
    done = slurm.run(
        slurm.env["SAIDPO_PYTHON"], "-m", "hpc_saidpo", "-m", *launcher, *SHORT, "clusters.n=2,4,6", f"run.root={root}",
        timeout_s=300, PATH=shim,
    )  # fmt: skip
    runs = sorted(path for path in root.iterdir() if (path / "metrics.jsonl").exists())
    assert [path.name.rpartition(",")[2] for path in runs] == ["loop.iterations=1"] * 3 or len(runs) == 3, done.stdout
    for path in runs:
        env = json.loads((path / "env.json").read_text())
        assert len(env) == 1 and env[0]["world_size"] == 2 and env[0]["hosts"] == ["n1", "n2"]
        assert not check(path).findings


def test_dead_ranks_do_not_outlive_their_cluster(slurm):
    """Whatever the tests above killed: nothing computes any more."""
    assert subprocess.run(["squeue", "-h"], env=slurm.env, capture_output=True, text=True).stdout == ""
    assert not slurm.ranks_on("n1") + slurm.ranks_on("n2")
