"""Starts on inputs that would end a run later: found before the first rollout, exit code 2, no traceback."""

import json
import shutil

import pytest
from support.make import MICRO
from support.program import start

from hpc_saidpo.records import Draw, Rollouts
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.e2e
LONG = "1 + " * 120 + "1"  # over 256 tokens of the micro model
SHORT = (
    "experiment=tiny", "pool=jsonl", "loop.iterations=2", "clusters.n=1", "probe.fraction=0.25",
    "sampler.n_questions=20", "rollouts.k=4", "rollouts.max_new_tokens=40", "evaluate.benchmarks=[held_out]",
)  # fmt: skip


def write(path, n, *long):
    rows = [{"id": f"q{i}", "question": f"{i % 10} + {i // 10}", "answer": str(i % 10 + i // 10)} for i in range(n)]
    rows += [{"id": id, "question": f"{LONG} + {i}", "answer": str(121 + i)} for i, id in enumerate(long)]
    path.write_text("".join(json.dumps({**row, "tags": ["sums"]}) + "\n" for row in rows))
    return path


def test_too_long_questions_are_left_out_on_any_number_of_ranks(tmp_path):
    pool, overrides = write(tmp_path / "pool.jsonl", 60, "long-a", "long-b"), (*SHORT, f"run.root={tmp_path}/runs")
    done = start(*overrides, f"pool.path={pool}", "pool.held_out=8", "run.name=a", "loop.iterations=1", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "questions are too long for the 256 positions of the policy" in done.stdout
    files = (tmp_path / "runs" / ".shared").glob("lengths-*/too_long.jsonl")
    listed = [json.loads(line)["id"] for path in files for line in path.read_text().splitlines()]
    assert sorted(listed) == ["long-a", "long-b"]
    resumed = start(*overrides, f"pool.path={pool}", "pool.held_out=8", "run.name=a", "loop.iterations=2")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    for t in range(2):
        folder = tmp_path / "runs" / "a" / f"iter-{t:03d}"
        ids = {id for stage in ("probe", "explore") for id in Stage(folder / stage).read_chunks(Rollouts).id_R}
        assert len(ids) > 20 and not ids & {"long-a", "long-b"}
        assert len(Stage(folder / "draw").read("draw", Draw)) == 20


def test_a_benchmark_with_a_too_long_question_is_refused(tmp_path):
    pool, benchmark = write(tmp_path / "pool.jsonl", 60), write(tmp_path / "exam.jsonl", 5, "long-a")
    done = start(*SHORT, f"pool.path={pool}", f"run.root={tmp_path}/runs", f"evaluate.benchmarks=[{benchmark}]")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "exam: 1 of 6 questions are too long" in done.stderr and "long-a needs" in done.stderr
    assert "lower rollouts.max_new_tokens" in done.stderr
    assert not (tmp_path / "runs" / "saidpo" / "base").exists()


@pytest.mark.parametrize(
    "overrides, says",
    [
        (("sampler.n_questions=31", "sampler.exclude_iterations=2"), "so the pool needs 62 questions"),
        (("dpo.lora.rank=2", "dpo.lora.targets=[nothing]"), "no linear layer of the model is called nothing"),
        (("rollouts.generate.graphs=true",), "rollouts.generate.graphs=true needs a GPU, and this rank has none"),
        (("rollouts.prompt.system='${x}'",), "Interpolation key 'x' not found"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, overrides, says):
    pool = write(tmp_path / "pool.jsonl", 60)
    done = start(*SHORT, f"pool.path={pool}", f"run.root={tmp_path}/runs", *overrides)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_damaged_tokenizer_is_named(tmp_path):
    pool, policy = write(tmp_path / "pool.jsonl", 60), shutil.copytree(MICRO, tmp_path / "policy")
    (policy / "tokenizer.json").write_text('{"version": "1.0", "mod')
    done = start(*SHORT, f"pool.path={pool}", f"run.root={tmp_path}/runs", f"policy.path={policy}")
    assert done.returncode == 2 and f"policy.path={policy}: the model is there but its tokenizer" in done.stderr


def test_a_dry_run_shows_the_plan_and_keeps_nothing(tmp_path):
    pool, root = write(tmp_path / "pool.jsonl", 60), tmp_path / "runs"
    words = (*SHORT, f"pool.path={pool}", "pool.held_out=8", f"run.root={root}")
    done = start("--dry-run", *words)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    for says in ("stage times", "gold answers", " questions, 8 held out", "the first prompt", "one rollout: "):
        assert says in done.stdout
    assert done.stdout.endswith("the run can start\n") and not list(root.glob("*/config.yaml"))
    refused = start("--dry-run", *words, "rollouts.max_new_tokens=256", "evaluate.benchmarks=[]")
    assert refused.returncode == 2 and "lower rollouts.max_new_tokens below 256" in refused.stdout
    assert "accuracy stays unknown" in refused.stdout and "the run cannot start like this" in refused.stdout
    on_two = start("--dry-run", *words, ranks=2)  # only the first rank prints
    assert on_two.returncode == 0, on_two.stdout + on_two.stderr
    for says in ("stage times", "the first prompt", "one rollout: ", "the run can start"):
        assert on_two.stdout.count(says) == 1


def test_a_pool_whose_gold_answers_can_never_be_right_is_refused(tmp_path):
    pool = tmp_path / "pool.jsonl"
    prose = "It depends on the parameter, as is shown above"
    rows = [{"question": f"{i}?", "answer": prose if i % 2 or i < 16 else str(i), "tags": ["x"]} for i in range(60)]
    pool.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = start(*SHORT, f"pool.path={pool}", f"run.root={tmp_path}/runs", "evaluate.benchmarks=[]")
    assert done.returncode == 2 and "38 of 60 gold answers can never be right" in done.stderr, done.stderr
