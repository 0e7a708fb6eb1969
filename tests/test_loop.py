"""The program itself, started as a user starts it: real ranks, a real model, real files."""

import dataclasses
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MICRO, command, start, user_environment
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_saidpo.records import Draw, Pairs, Rollouts
from hpc_saidpo.store import Stage

pytestmark = pytest.mark.e2e
# A loop of a few seconds beyond start-up.
SMALL = (
    "experiment=tiny", "loop.iterations=2", "pool.n=240", "pool.held_out=24", "clusters.n=6", "probe.fraction=0.15",
    "sampler.n_questions=60", "rollouts.k=4", "dpo.batch_pairs=8", "rollouts.chunk_questions=8",
)  # fmt: skip


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """One folder of runs for all tests: embeddings are shared, as a user's are."""
    return tmp_path_factory.mktemp("runs")


def succeed(root, name, *overrides, ranks):
    done = start(*overrides, f"run.root={root}", f"run.name={name}", ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def assert_same(a: Path, b: Path, iterations=2, weights=True):
    """Two runs drew, rolled out, paired and trained the same."""
    for t in range(iterations):
        stages = [Stage(run / f"iter-{t:03d}") for run in (a, b)]
        for name, table in (("draw/draw", Draw), ("pairs/pairs", Pairs)):
            one, other = (stage.read(name, table) for stage in stages)
            for f in dataclasses.fields(table):
                assert np.array_equal(getattr(one, f.name), getattr(other, f.name)), (t, name, f.name)
            assert len(one) > 0
        for name in ("probe", "explore"):
            one, other = (Stage(stage.path / name).read_chunks(Rollouts).sorted() for stage in stages)
            assert one.text_R == other.text_R and np.array_equal(one.question_R, other.question_R), (t, name)
        if weights:
            one, other = (torch_weights(stage.path / "policy" / "model") for stage in stages)
            assert all(torch.equal(one[k], other[k]) for k in one)


def torch_weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


@pytest.fixture(scope="session")
def tiny(root):
    """`experiment=tiny` as it stands, on two ranks."""
    return root / "tiny2", succeed(root, "tiny2", "experiment=tiny", ranks=2)


def test_tiny_runs_end_to_end_on_two_ranks(tiny):
    run, done = tiny
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["iteration"] for m in metrics] == list(range(len(metrics))) and len(metrics) >= 2
    for m in metrics:
        assert 0 < m["probe_pass_rate"] < 1 and 0 < m["pair_yield"] <= 1 and m["pairs"] > 0
        assert m["scores"]["held_out"]["n_questions"] > 100
    for wanted in ("probe pass rate", "pair yield", "margin", "held_out before → after", "policy:", "probe: "):
        assert wanted in done.stdout
    assert "Traceback" not in done.stderr
    for name in ("config.yaml", "env.json", "report.html", "curves.png", "log/rank-0001.log"):
        assert (run / name).is_file()
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((run / "env.json").read_text())[0]["world_size"] == 2


def test_dynamic_sampling_draws_where_the_errors_are(tiny):
    run, _ = tiny
    for line in (run / "metrics.jsonl").read_text().splitlines():
        m = json.loads(line)
        assert m["pair_yield"] > 1.3 * m["probe_usable_share"]  # against what uniform sampling finds
        heaviest = int(np.argmax(m["cluster_weight"]))
        assert m["cluster_error_rate"][heaviest] == max(e for e in m["cluster_error_rate"] if e is not None)


def test_the_probes_rollouts_are_used_again_not_made_twice(tiny):
    stage = Stage(tiny[0] / "iter-000")
    probed, explored = (set(Stage(stage.path / n).read_chunks(Rollouts).question_R) for n in ("probe", "explore"))
    drawn = set(stage.read("draw/draw", Draw).question_Q)
    assert not probed & explored and drawn - probed == explored and drawn & probed


def test_the_final_policy_loads_and_generates(tiny):
    folder = tiny[0] / "iter-002" / "policy" / "model"
    assert str(folder) in tiny[1].stdout
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    out = model.generate(**tokenizer("12+13=?\n", return_tensors="pt"), max_new_tokens=20, do_sample=False)
    assert "####" in tokenizer.decode(out[0])
    before = AutoModelForCausalLM.from_pretrained(MICRO).state_dict()
    assert any(not torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("ranks", [1, 3])
def test_any_number_of_ranks_gives_the_same_run(tiny, root, ranks):
    succeed(root, f"tiny{ranks}", "experiment=tiny", ranks=ranks)
    assert_same(tiny[0], root / f"tiny{ranks}", iterations=3)


def test_without_mpi_one_process_gives_the_same_run(root):
    succeed(root, "small2", *SMALL, ranks=2)
    program = "import sys, runpy; sys.modules['mpi4py'] = None; runpy.run_module('hpc_saidpo', run_name='__main__')"
    done = start(*SMALL, f"run.root={root}", "run.name=small0", program=("-c", program))
    assert done.returncode == 0, done.stderr
    assert_same(root / "small2", root / "small0")


def test_the_fast_mode_agrees_up_to_the_first_training(root):
    for ranks in (1, 2):
        succeed(
            root, f"fast{ranks}", *SMALL, "run.deterministic=false", "run.threads=1", "loop.iterations=1", ranks=ranks
        )
    assert_same(root / "fast1", root / "fast2", iterations=1, weights=False)


def test_a_finished_run_is_shown_again_and_goes_on_when_asked(root):
    succeed(root, "grown", *SMALL, "loop.iterations=1", ranks=1)
    grown = succeed(root, "grown", *SMALL, ranks=2)
    assert "probe: " in grown.stdout  # iteration 1
    succeed(root, "whole", *SMALL, ranks=1)
    assert_same(root / "grown", root / "whole")
    again = succeed(root, "grown", *SMALL, ranks=1)
    assert "done in" not in again.stdout and "held_out before → after" in again.stdout


def test_a_killed_run_continues(root):
    arguments = (*SMALL, f"run.root={root}", "run.name=killed", "rollouts.chunk_questions=2")
    process = subprocess.Popen(
        command(*arguments, ranks=2),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=user_environment(),
    )
    explored = root / "killed" / "iter-000" / "explore"
    deadline = time.monotonic() + 200
    while len(list(explored.glob("chunk-*.h5"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first_chunks = {p: p.stat().st_mtime_ns for p in explored.glob("chunk-*.h5")}
    assert len(first_chunks) >= 3 and not (explored / "DONE").exists()
    succeed(root, "killed", *SMALL, "rollouts.chunk_questions=2", ranks=2)
    assert all(p.stat().st_mtime_ns == made for p, made in first_chunks.items())  # not generated again
    succeed(root, "unkilled", *SMALL, "rollouts.chunk_questions=2", ranks=1)
    assert_same(root / "killed", root / "unkilled")


def test_a_person_sees_bars_and_a_log_file_plain_lines(root):
    screen, terminal = os.openpty()
    process = subprocess.Popen(
        command(*SMALL, "loop.iterations=1", f"run.root={root}", "run.name=watched", ranks=2),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=user_environment(TERM="xterm"),
    )
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(screen, 65536):
            shown += block
    except OSError:  # Linux ends a terminal without writers this way
        pass
    assert process.wait(timeout=60) == 0
    assert b"%|" in shown and b"probe: 36 questions" in shown
    log = (root / "watched" / "log" / "rank-0000.log").read_text()
    assert "probe: 36 questions" in log and "%|" not in log and "\r" not in log


def test_multirun_under_mpiexec(root):
    done = start("-m", *SMALL, "loop.iterations=1", "clusters.n=2,4", f"run.root={root / 'sweep'}", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [r for r in (root / "sweep").iterdir() if (r / "metrics.jsonl").exists()]
    clusters = sorted(len(json.loads((r / "metrics.jsonl").read_text())["cluster_weight"]) for r in runs)
    assert clusters == [2, 4] and all("clusters.n=" in r.name for r in runs)


def test_one_ranks_failure_ends_the_job_with_its_traceback(root, tmp_path):
    program = tmp_path / "crash.py"
    program.write_text(
        "from hpc_saidpo import __main__, rollouts\n"
        "from hpc_saidpo.parallel import connect\n"
        "def verify(*_): raise ZeroDivisionError('a bug on one rank')\n"
        "if connect().rank == 1: rollouts.verify = verify\n"
        "__main__.main()\n"
    )
    done = start(*SMALL, f"run.root={root}", "run.name=crash", ranks=2, program=(str(program),), timeout_s=120)
    assert done.returncode not in (0, None)
    assert "rank 1 failed" in done.stderr and "ZeroDivisionError: a bug on one rank" in done.stderr


def test_depletion_is_named_and_the_run_can_go_on_with_another_setting(root):
    cut = (*SMALL, "rollouts.max_new_tokens=1", f"run.root={root}", "run.name=depleted")
    done = start(*cut, ranks=2)
    assert done.returncode == 3
    assert "depletion in iteration 0" in done.stdout and "run.accept_changes=true" in done.stdout
    assert "Traceback" not in done.stderr
    refused = start(*SMALL, f"run.root={root}", "run.name=depleted", ranks=2)
    assert refused.returncode == 2 and "rollouts.max_new_tokens: 1 in the run, 24 now" in refused.stderr
    succeed(root, "depleted", *SMALL, "run.accept_changes=true", ranks=2)
    assert (root / "depleted" / "iter-000.old-1").is_dir()


@pytest.mark.parametrize(
    "overrides, says",
    [
        (("pool=jsonl", "pool.path=/no/such.jsonl"), "question file /no/such.jsonl"),
        (("clusters.n=241",), "clusters.n=241, but the pool has 240 questions"),
        (("rollouts.k=1",), "rollouts.k: Input should be greater than or equal to 2"),
        (("clusters.size=3",), "unknown key 'clusters.size'"),
        (("policy.path=/no/model",), "policy.path=/no/model"),
        (("sampler.n_questions=241",), "sampler.n_questions asks for 241"),
        (("pool=nothing",), "Could not find 'pool/nothing'"),
        (("rollouts.max_new_tokens=4000",), "lower rollouts.max_new_tokens"),
    ],
)
def test_bad_input_is_one_clear_message(root, overrides, says):
    name = "bad-" + "".join(c if c.isalnum() else "-" for c in overrides[-1])
    base = ("experiment=tiny",) if "pool=jsonl" in overrides else SMALL
    done = start(*base, f"run.root={root}", f"run.name={name}", *overrides, ranks=2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(says) == 1 and "Traceback" not in done.stderr and "Error executing job" not in done.stderr
