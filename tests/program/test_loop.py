"""The program itself, started as a user starts it: real ranks, a real model, real files."""

import json
import os
import platform
import re
import signal
import subprocess
import termios
import time

import numpy as np
import pytest
import torch
import yaml
from support.make import MICRO
from support.program import command, start, user_environment
from support.small_run import SMALL, assert_same
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_saidpo.records import Draw, Pairs, Rollouts
from hpc_saidpo.report.explain import explain
from hpc_saidpo.report.status import read_state
from hpc_saidpo.store.check import check
from hpc_saidpo.store.compare import compare
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.e2e


HEAVY = {
    "transformers", "matplotlib", "sklearn", "sentence_transformers", "peft", "vllm", "torch.distributed.checkpoint",
}  # fmt: skip


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """One folder of runs for all tests: embeddings are shared, as a user's are."""
    return tmp_path_factory.mktemp("runs")


def succeed(root, name, *overrides, ranks):
    done = start(*overrides, f"run.root={root}", f"run.name={name}", ranks=ranks)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def small2(root):
    """`SMALL` on two ranks, uninterrupted; made when it is first asked for."""
    if not (root / "small2" / "iter-001" / "DONE").exists():
        succeed(root, "small2", *SMALL, ranks=2)
    return root / "small2"


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
    for wanted in ("probe pass rate", "pair yield", "rewards/margins", "held_out before → after", "policy:", "probe: "):
        assert wanted in done.stdout
    assert "Traceback" not in done.stderr
    for name in ("config.yaml", "env.json", "report.html", "work.json", "log/start-000/rank-0001.log"):
        assert (run / name).is_file()
    work = json.loads((run / "work.json").read_text())
    assert {rank for rank, seconds, tokens in work["iter-000/explore"] if seconds and tokens} == {0, 1}
    page = (run / "report.html").read_text()
    assert all(f"<h2>{title}</h2>" in page for title in ("Accuracy", "Clusters", "DPO", "What the model answered"))
    assert "3 iterations of training raised the accuracy on held_out" in page and "experiment=tiny" in page
    assert f"report: {run / 'report.html'}" in done.stdout and f"hpc-saidpo show {run} --wrong" in done.stdout
    assert json.loads((run / "env.json").read_text())[0]["world_size"] == 2


def test_dynamic_sampling_draws_where_the_errors_are(tiny):
    run, _ = tiny
    for line in (run / "metrics.jsonl").read_text().splitlines():
        m = json.loads(line)
        assert m["pair_yield"] > 1.3 * m["probe_usable_share"]  # against what uniform sampling finds
        heaviest = int(np.argmax(m["cluster_weight"]))
        assert m["cluster_error_rate"][heaviest] == max(e for e in m["cluster_error_rate"] if e is not None)


def test_every_drawn_question_can_be_explained(tiny):
    run, stage = tiny[0], Stage(tiny[0] / "iter-001")
    rollouts = Rollouts.concat([Stage(stage.path / n).read_chunks(Rollouts) for n in ("probe", "explore")])
    name_of = dict(zip(rollouts.question_R.tolist(), rollouts.id_R, strict=True))
    drawn, paired = stage.read("draw/draw", Draw), set(stage.read("pairs/pairs", Pairs).question_B.tolist())
    for row in range(0, len(drawn), 30):
        question = int(drawn.question_Q[row])
        told = dict(explain(run, 1, name_of[question]))
        assert told["draw"] == f"drawn as number {row + 1} of {len(drawn)}"
        assert told["weight"].startswith(f"{drawn.weight_Q[row]:.4g};")
        assert told["cluster"].startswith(f"{drawn.cluster_Q[row]}: ")
        assert ("made: " in told["pair"]) == (question in paired)
    assert paired & set(drawn.question_Q[::30].tolist()) and set(drawn.question_Q[::30].tolist()) - paired


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


def test_any_number_of_ranks_gives_the_same_run(root):
    succeed(root, "small3", *SMALL, ranks=3)
    assert_same(root / "small3", small2(root))


def test_without_mpi_one_process_gives_the_same_run(root):
    program = "import sys, runpy; sys.modules['mpi4py'] = None; runpy.run_module('hpc_saidpo', run_name='__main__')"
    done = start(*SMALL, f"run.root={root}", "run.name=small0", program=("-c", program))
    assert done.returncode == 0, done.stderr
    assert_same(root / "small0", small2(root))


def test_the_fast_mode_agrees_up_to_the_first_training(root):
    fast = ("run.deterministic=false", "run.threads=1", "loop.iterations=1")
    for name, ranks, strategy in (("fast1", 1, "ddp"), ("fast2", 2, "ddp"), ("shards2", 2, "fsdp")):
        succeed(root, name, *SMALL, *fast, f"dpo.strategy={strategy}", ranks=ranks)
        differing = {note.split(":")[0] for note in compare(root / "fast1", root / name).notes}
        assert differing <= {"iter-000/policy", "iter-000/evaluate/held_out", "iter-000/metrics"}
        one, several = (Stage(root / run / "iter-000" / "policy").read_json("steps") for run in ("fast1", name))
        assert [s["loss"] for s in several] == pytest.approx([s["loss"] for s in one], rel=1e-3)


def test_root_trains_alone_what_all_ranks_train_together(root):
    succeed(root, "single2", *SMALL, "dpo.strategy=single", ranks=2)
    assert_same(root / "single2", small2(root))


def test_a_run_can_be_split_over_jobs_and_grow(root):
    """A start for every few stages, each on another number of ranks; then one more iteration; then nothing to do."""
    run = root / "split"
    finished = set()
    for ranks, stop, stages in (
        (2, "explore", {"probe", "draw", "explore"}), (1, "policy", {"pairs", "policy"}), (3, "evaluate", set())
    ):  # fmt: skip
        done = succeed(root, "split", *SMALL, f"loop.stop_after={stop}", ranks=ranks)
        assert "stopped after" in done.stdout and "(loop.stop_after)" in done.stdout
        finished |= stages
        assert {path.parent.name for path in run.glob("iter-000/*/DONE")} == finished
        assert (run / "iter-000" / "DONE").exists() == (stop == "evaluate") and not (run / "iter-001").exists()
    assert f"policy: {run / 'iter-000' / 'policy' / 'model'}" in done.stdout
    made = {p: p.stat().st_mtime_ns for p in run.glob("iter-000/**/*") if p.is_file()}
    succeed(root, "split", *SMALL, "loop.iterations=1", ranks=1)
    grown = succeed(root, "split", *SMALL, ranks=2)
    assert "probe: " in grown.stdout  # of iteration 1
    assert_same(run, small2(root))
    again = succeed(root, "split", *SMALL, ranks=1)
    assert "done in" not in again.stdout and "held_out before → after" in again.stdout
    assert all(p.stat().st_mtime_ns == t for p, t in made.items())


def test_a_finished_run_starts_without_the_libraries_that_compute(root):
    small2(root)
    program = (
        "import atexit, runpy, sys\n"
        f"heavy = {HEAVY}\n"
        "atexit.register(lambda: print('imported:', *sorted(heavy & sys.modules.keys()), '.'))\n"
        "runpy.run_module('hpc_saidpo', run_name='__main__')\n"
    )
    arguments = (*SMALL, f"run.root={root}", "run.name=small2")
    done = start(*arguments, program=("-c", program))
    assert done.returncode == 0, done.stderr
    assert "held_out before → after" in done.stdout and "imported: .\n" in done.stdout
    assert "Complete" not in (root / "small2" / "report.html").read_text()  # only another end is named


def test_a_second_job_on_the_same_run_is_refused(root):
    arguments = (*SMALL, f"run.root={root}", "run.name=twice")
    first = subprocess.Popen(
        command(*arguments, ranks=2, is_warm=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=user_environment(),
    )
    lock = root / "twice" / "lock"
    while not lock.exists() and first.poll() is None:
        time.sleep(0.01)
    owner = json.loads(lock.read_text())
    os.kill(owner["pid"], signal.SIGSTOP)  # however long the second takes to start, the first is there
    try:
        second = start(*arguments, ranks=1)
    finally:
        os.kill(owner["pid"], signal.SIGCONT)
    assert second.returncode == 2 and "Traceback" not in second.stderr
    assert f"in use by another job: host {owner['host']}, pid {owner['pid']}" in second.stderr
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output
    assert not lock.exists() and not compare(root / "twice", small2(root)).notes


def test_a_person_sees_bars_and_a_log_file_plain_lines(root):
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 60))
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
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode()))
    bars = [line for line in lines if "━" in line]
    assert bars and all(re.fullmatch(r" +[\w/ -]+ [━╸╺]+ [\d,]+ of [\d,]+ \w+ *", bar) for bar in bars), bars
    assert max(map(len, bars)) < 60
    assert [line for line in lines if line.startswith("  probe: 36 questions × 4: done in ")], lines
    log = (root / "watched" / "log" / "start-000" / "rank-0000.log").read_text()
    assert "probe: 36 questions" in log and "━" not in log and "\r" not in log


def test_multirun_under_mpiexec(root):
    vary = ("clusters.n=2,4", "run.seed=0,1")
    done = start(
        "-m", *SMALL, "loop.iterations=1", "loop.stop_after=draw", *vary, f"run.root={root / 'sweep'}", ranks=2
    )
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [r for r in (root / "sweep").iterdir() if (r / "iter-000" / "draw" / "DONE").exists()]
    known = [yaml.safe_load((r / "config.yaml").read_text()) for r in runs]
    assert sorted((c["clusters"]["n"], c["run"]["seed"]) for c in known) == [(2, 0), (2, 1), (4, 0), (4, 1)]
    for run, config in zip(runs, known, strict=True):
        name = run.name.split(",")
        assert f"clusters.n={config['clusters']['n']}" in name and f"run.seed={config['run']['seed']}" in name


def test_one_ranks_failure_ends_the_job_with_its_traceback(root, tmp_path):
    program = tmp_path / "crash.py"
    program.write_text(
        "import sys\n"
        "from hpc_saidpo.cli.main import main\n"
        "from hpc_saidpo.parallel.launch import connect\n"
        "from hpc_saidpo.rollouts import waves\n"
        "def count_steps(*_): raise ZeroDivisionError('a bug on one rank')\n"
        "if connect().rank == 1: waves.count_steps = count_steps\n"
        "sys.exit(main())\n"
    )
    done = start(*SMALL, f"run.root={root}", "run.name=crash", ranks=2, program=(str(program),), timeout_s=120)
    assert done.returncode not in (0, None)
    assert f"rank 1 on {platform.node()} failed" in done.stderr
    assert "ZeroDivisionError: a bug on one rank" in done.stderr
    state = read_state(root / "crash", "crash")
    assert (state.state, state.message.partition(":")[0]) == ("failed", f"rank 1 on {platform.node()}")


def test_a_failure_signature_stops_the_run_if_it_shall(root):
    weak = (*SMALL, "sampler.rule=error", "sampler.kappa=1e6", f"run.root={root}", "run.name=weak")
    done = start(*weak, "loop.on_signature=stop", ranks=2)
    assert done.returncode == 3 and "Traceback" not in done.stderr and "Abort" not in done.stderr
    assert "stopped after iteration 0" in done.stdout and "stagnation" in done.stdout
    assert check(root / "weak").n_unfinished == 0 and (root / "weak" / "report.html").is_file()
    succeed(root, "weak", *weak, ranks=1)
    assert (root / "weak" / "iter-001" / "DONE").is_file()


def test_depletion_is_named_and_the_run_can_go_on_with_another_setting(root):
    cut = (*SMALL, "rollouts.max_new_tokens=1", f"run.root={root}", "run.name=depleted")
    done = start(*cut, ranks=2)
    assert done.returncode == 3
    assert "depletion in iteration 0" in done.stdout and "run.accept_changes=true" in done.stdout
    assert "cut at rollouts.max_new_tokens=1: raise it" in done.stdout and "one response, to question" in done.stdout
    page = (root / "depleted" / "report.html").read_text()
    assert "Ended by a failure signature:" in page and "raise it" in page and "no verdict yet" in page
    assert "Traceback" not in done.stderr
    refused = start(*SMALL, f"run.root={root}", "run.name=depleted", ranks=2)
    assert refused.returncode == 2 and "rollouts.max_new_tokens: 1 in the run, 24 now" in refused.stderr
    succeed(root, "depleted", *SMALL, "run.accept_changes=true", ranks=2)
    assert (root / "depleted" / "iter-000.old-1").is_dir()


def test_a_run_out_of_pairs_does_not_end_its_multirun(root):
    vary = ("loop.iterations=1", "rollouts.max_new_tokens=1,24", f"run.root={root / 'depleting'}")
    done = start("-m", *SMALL, *vary, ranks=2)
    assert done.returncode == 3 and done.stdout.count("depletion in iteration 0") == 1
    (depleted,), (complete,) = ((root / "depleting").glob(f"tiny,*rollouts.max_new_tokens={n}") for n in (1, 24))
    assert not (depleted / "metrics.jsonl").exists() and (complete / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "overrides, says",
    [
        (("pool=jsonl", "pool.path=/no/such.jsonl"), "pool.path=/no/such.jsonl: no such file"),
        (("clusters.n=241",), "clusters.n=241, but the pool has 240 questions"),
        (("rollouts.k=1",), "rollouts.k: Input should be greater than or equal to 2"),
        (("clusters.size=3",), "unknown key 'clusters.size'"),
        (("policy.path=/no/model",), "policy.path=/no/model"),
        (("sampler.n_questions=241",), "so the pool needs 241 questions that may be drawn, but has 240"),
        (("pool=nothing",), "Could not find 'pool/nothing'"),
        (("rollouts.max_new_tokens=4000",), "lower rollouts.max_new_tokens"),
    ],
)
def test_bad_input_is_one_clear_message(root, overrides, says):
    name = "bad-" + "".join(c if c.isalnum() else "-" for c in overrides[-1])
    base = ("experiment=tiny",) if "pool=jsonl" in overrides else SMALL
    done = start(*base, f"run.root={root}", f"run.name={name}", *overrides, ranks=2)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(says) == 1
    unwanted = {"Traceback", "Error executing job"} | ({"Abort"} if "pool=nothing" not in overrides else set())
    assert not [word for word in unwanted if word in done.stderr]
