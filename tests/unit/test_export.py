"""Exports of pairs and rollouts: rows, formats, and failures."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.make import load_micro, make_prompts, make_rollouts

from hpc_saidpo.cli.export import main
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Pairs, Question, Questions, Rollouts
from hpc_saidpo.report.export import BATCH, COLUMNS, WRITERS, export, pairs_rows, rollout_rows
from hpc_saidpo.report.responses import Responses
from hpc_saidpo.store.stage import Stage

TEXTS = ["½ × 日本語 😀", "two\nlines\r\n", "nul \x00 inside", "line separators \u2028 \x85", '"quoted" \\ {}', ""]
FULL_SEED = 2**64 - 1
# (question, sample, verdict, n_tokens, n_steps, finished, text), by question and sample
ROWS = [
    (q, k, (CORRECT, WRONG, UNGRADABLE)[(q + k) % 3], 10 * q + k + 1, k + 1, (q + k) % 4 > 0, TEXTS[(2 * q + k) % 6])
    for q in range(6)
    for k in range(3)
]
PROBED, EXPLORED = (1, 4), (0, 2, 3, 5)
CHUNKS = {"probe": [[4], [1]], "explore": [[5, 0], [3], [2]]}  # the questions of each


def make_pairs(iteration: int) -> Pairs:
    n = len(TEXTS)
    return Pairs(
        np.arange(n) + 100, np.full(n, iteration), np.arange(n), np.arange(n) + 1, np.arange(n) % 2 == 0,
        np.arange(n) % 3 == 0, np.arange(n) % 4, np.arange(n) / 7, np.arange(n) + 0.5, np.arange(n) * 1.25,
        [f"arithmetic-½{i}" for i in range(n)], TEXTS, [t + "!" for t in TEXTS], [t + "?" for t in TEXTS],
        [np.arange(i + 1) for i in range(n)], [np.array([70_000, i]) for i in range(n)],
        [np.array([i]) for i in range(n)],
    )  # fmt: skip


def rollouts_of(questions) -> Rollouts:
    """Their rows, samples in reverse, each with a seed of its own that needs all 64 bits."""
    table = make_rollouts([row for q in questions for row in reversed(ROWS) if row[0] == q])
    seeds = [FULL_SEED - 10 * int(q) - int(k) for q, k in zip(table.question_R, table.sample_R, strict=True)]
    ids = [np.array([10 * int(q), int(k)]) for q, k in zip(table.question_R, table.sample_R, strict=True)]
    return replace(table, seed_R=np.array(seeds, dtype=np.uint64), tokens_R=ids)


def stage_of(run: Path, iteration: int, name: str) -> Stage:
    """A stage that knows its place, as the program's do."""
    return Stage(run / f"iter-{iteration:03d}" / name, {"iteration": iteration, "stage": name})


def make_run(path: Path, sealed: bool = True, iterations: int = 2) -> Path:
    """A run folder with a probe, an explore and a pairs stage in every iteration."""
    for t in range(iterations):
        for name, chunks in CHUNKS.items():
            stage = stage_of(path, t, name)
            stage.prepare()
            for index, questions in enumerate(chunks):
                stage.write_chunk(index, rollouts_of(questions))
            if sealed:
                stage.seal(range(0, 2), Rollouts)
                if len(chunks) > 2:
                    stage.seal(range(2, 3), Rollouts)
            stage.mark_done()
        stage = stage_of(path, t, "pairs")
        stage.prepare()
        stage.write("pairs", make_pairs(t))
        stage.mark_done()
    return path


def read_back(path: Path) -> list[dict]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    from pyarrow import parquet

    table = parquet.read_table(path)
    kinds = {field.name: str(field.type) for field in table.schema}
    return table.to_pylist() if kinds == COLUMNS[path.stem.rpartition("-")[2]] else [kinds]


def exported(run: Path, out: Path, what: str, form: str, iteration: int | None = None) -> list[dict]:
    path = out / f"out-{what}.{form}"
    n = export(run, what, form, path, iteration)
    assert [p for p in out.iterdir() if p.name.startswith(".")] == []
    rows = read_back(path)
    assert len(rows) == n and all(list(row) == list(COLUMNS[what]) for row in rows)
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "sealed")


@pytest.mark.parametrize("form", WRITERS)
def test_pairs_come_back_as_they_were_and_say_where_they_come_from(run, tmp_path, form):
    rows = exported(run, tmp_path, "pairs", form)
    tables = [make_pairs(0), make_pairs(1)]
    for name, field in (
        ("prompt", "prompt_B"), ("chosen", "chosen_B"), ("rejected", "rejected_B"), ("question_id", "id_B"),
        ("question", "question_B"), ("iteration", "iteration_B"), ("cluster", "cluster_B"),
        ("chosen_finished", "chosen_finished_B"), ("rejected_finished", "rejected_finished_B"),
        ("pass_rate", "pass_rate_B"), ("steps", "steps_B"), ("tokens", "tokens_B"),
    ):  # fmt: skip
        assert [row[name] for row in rows] == [v for table in tables for v in list(getattr(table, field))], name
    for name in ("prompt_tokens", "chosen_tokens", "rejected_tokens"):
        assert [row[name] for row in rows] == [i.tolist() for table in tables for i in getattr(table, f"{name}_B")]
    assert rows[1]["chosen_tokens"] == [70_000, 1]
    assert [rows[i]["chosen_rollout"] for i in (0, 7)] == ["iter-000/arithmetic-½0/0", "iter-001/arithmetic-½1/1"]
    assert [rows[i]["rejected_rollout"] for i in (0, 7)] == ["iter-000/arithmetic-½0/1", "iter-001/arithmetic-½1/2"]


@pytest.mark.parametrize("form", WRITERS)
def test_rollouts_come_back_by_iteration_question_and_sample(run, tmp_path, form):
    rows = exported(run, tmp_path, "rollouts", form)
    verdicts = {CORRECT: "correct", WRONG: "wrong", UNGRADABLE: "ungradable"}
    expected = [
        {
            "rollout": f"iter-{t:03d}/q{q}/{k}", "question_id": f"q{q}", "question": q, "iteration": t,
            "stage": "probe" if q in PROBED else "explore", "question_text": None, "gold": None, "extracted": None,
            "sample": k, "response": text,
            "verdict": verdicts[verdict], "n_tokens": n_tokens, "n_steps": n_steps, "finished": finished,
            "seconds": 1.0, "seed": str(FULL_SEED - 10 * q - k), "response_tokens": [10 * q, k],
        }
        for t in range(2)
        for q, k, verdict, n_tokens, n_steps, finished, text in ROWS
    ]  # fmt: skip
    assert rows == expected


@pytest.mark.parametrize("form", WRITERS)
def test_rollouts_have_their_questions_and_evaluations_are_among_them(tmp_path, form):
    path = tmp_path / "run"
    for place, t, name, text in (("base", -1, "evaluate/exam", "so \\boxed{17}"), ("iter-000", 0, "probe", "")):
        stage = Stage(path / place / name, {"iteration": t, "stage": name})
        stage.prepare()
        stage.write("prompts", make_prompts([3]))
        stage.write("questions", Questions.of([Question("q3", "What is 8 + 9?\ud800", "17")]))
        stage.write_chunk(0, make_rollouts([(3, 0, CORRECT, 1, 1, True, text)]))
        stage.mark_done()
    evaluated, probed = exported(path, tmp_path, "rollouts", form)
    assert [evaluated[name] for name in ("rollout", "iteration", "stage", "question_text", "gold", "extracted")] == [
        "base/evaluate/exam/q3/0", -1, "evaluate/exam", "What is 8 + 9?\ufffd", "17", "17"
    ]  # fmt: skip
    assert (probed["rollout"], probed["gold"], probed["extracted"]) == ("iter-000/q3/0", "17", None)
    assert exported(path, tmp_path, "rollouts", form, -1) == [evaluated]


def test_a_pair_names_rollouts_that_are_exported(tmp_path):
    path = make_run(tmp_path / "run", iterations=1)
    pairs = replace(make_pairs(0).take([0, 1]), question_B=np.array([4, 5]), id_B=["q4", "q5"])
    stage = stage_of(path, 0, "pairs")
    stage.write("pairs", pairs)
    stage.mark_done()
    known = {row["rollout"] for row in exported(path, tmp_path, "rollouts", "jsonl")}
    for row in exported(path, tmp_path, "pairs", "jsonl"):
        assert {row["chosen_rollout"], row["rejected_rollout"]} <= known


@pytest.mark.parametrize("form", WRITERS)
def test_chunks_and_shards_do_not_show(run, tmp_path, form):
    in_chunks = make_run(tmp_path / "chunks", sealed=False)
    names = [sorted(p.name for p in r.glob("iter-000/explore/*.h5")) for r in (run, in_chunks)]
    assert list(map(len, names)) == [2, 3] and not set(names[0]) & set(names[1])
    for what in COLUMNS:
        assert exported(in_chunks, tmp_path, what, form) == exported(run, tmp_path, what, form)


def test_one_iteration_alone(run, tmp_path):
    for what in COLUMNS:
        every = exported(run, tmp_path, what, "jsonl")
        assert exported(run, tmp_path, what, "jsonl", 1) == [row for row in every if row["iteration"] == 1]


def test_only_finished_stages_are_exported(tmp_path):
    path = make_run(tmp_path / "run", sealed=False)
    (path / "iter-001" / "explore" / "DONE").unlink()
    (path / "iter-001" / "pairs" / "DONE").unlink()
    (path / "iter-000").rename(path / "iter-000.old-1")  # set aside by the program
    rows = exported(path, tmp_path, "rollouts", "jsonl")
    assert {(row["iteration"], row["stage"]) for row in rows} == {(1, "probe")} and len(rows) == 3 * len(PROBED)
    with pytest.raises(RunError, match="no finished pairs stage"):
        export(path, "pairs", "jsonl", tmp_path / "pairs.jsonl")
    assert not (tmp_path / "pairs.jsonl").exists()


def test_a_shard_that_is_gone_is_an_error_and_the_old_file_stays(tmp_path):
    path = make_run(tmp_path / "run")
    out = tmp_path / "out-rollouts.jsonl"
    export(path, "rollouts", "jsonl", out)
    before = out.read_bytes()
    (path / "iter-001" / "explore" / "shard-000002-000002.h5").unlink()
    with pytest.raises(RunError, match=r"iter-001/explore/shard-000002-000002\.h5: is missing"):
        export(path, "rollouts", "jsonl", out)
    assert out.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == [out.name, "run"]


@pytest.mark.parametrize("form", WRITERS)
def test_lone_surrogates_become_replacement_characters(tmp_path, form):
    table = make_rollouts(
        [(0, 0, CORRECT, 3, 1, True, "a\ud800b\udfff\U0001f600"), (0, 1, WRONG, 3, 1, True, "\udc80")]
    )
    stage = stage_of(tmp_path / "run", 0, "probe")
    stage.prepare()
    stage.write_chunk(0, table)
    stage.mark_done()
    rows = exported(tmp_path / "run", tmp_path, "rollouts", form)
    assert [row["response"] for row in rows] == ["a\ufffdb\ufffd\U0001f600", "\ufffd"]


def test_rows_come_in_batches_and_nothing_is_lost_between_them(tmp_path):
    n = BATCH + 5
    texts = [str(i) for i in range(n)]
    table = Rollouts(
        np.arange(n)[::-1] // 4, np.arange(n)[::-1] % 4, np.zeros(n, np.int8), np.arange(n), np.arange(n),
        np.ones(n, bool), np.full(n, FULL_SEED, np.uint64), np.ones(n), texts, texts,
    )  # fmt: skip
    parts = (("probe", np.arange(7)), ("explore", np.arange(7, n)))
    batches = list(rollout_rows([Responses(stage_of(tmp_path, 3, name), table.take(rows)) for name, rows in parts]))
    assert [len(rows) for rows in batches] == [BATCH, 5]
    rows = [row for batch in batches for row in batch]
    assert [row["response"] for row in rows] == texts[::-1]
    assert [row["stage"] for row in rows] == ["explore"] * (n - 7) + ["probe"] * 7
    assert {row["seed"] for row in rows} == {str(FULL_SEED)}
    assert [row["prompt"] for batch in pairs_rows(make_pairs(0)) for row in batch] == TEXTS
    nothing = Responses(stage_of(tmp_path, 0, "probe"), Rollouts.concat([]))
    assert list(pairs_rows(Pairs.concat([]))) == [] == list(rollout_rows([nothing]))


def test_an_empty_stage_gives_an_empty_file(tmp_path):
    stage = stage_of(tmp_path / "run", 0, "pairs")
    stage.prepare()
    stage.write("pairs", Pairs.concat([]))
    stage.mark_done()
    for form in WRITERS:
        assert exported(tmp_path / "run", tmp_path, "pairs", form) == []


def test_the_verb_writes_beside_the_caller_and_says_what(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(run), "--what", "pairs", "--format", "jsonl"]) == 0
    assert capsys.readouterr() == ("12 rows of pairs -> sealed-pairs.jsonl\n", "")
    assert [p.name for p in tmp_path.iterdir()] == ["sealed-pairs.jsonl"]
    assert read_back(tmp_path / "sealed-pairs.jsonl") == exported(run, tmp_path, "pairs", "jsonl")
    out = tmp_path / "deep" / "er" / "my-rollouts.parquet"
    words = ["--what", "rollouts", "--format", "parquet", "--iteration", "1", "--out", str(out)]
    assert main([str(run), *words]) == 0
    assert capsys.readouterr().out == f"18 rows of rollouts -> {out}\n"
    assert len(read_back(out)) == 18


def test_what_can_be_mended_is_reported_with_exit_code_2(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    for arguments, message in (
        (["runs/none", "--format", "jsonl"], "there is no run folder runs/none: "),
        ([run, "--format", "jsonl", "--iteration", 7], f"{run}/iter-007 has no finished pairs stage"),
        ([run, "--format", "jsonl", "--out", run], f"cannot write {run}: Is a directory"),
        ([run, "--format", "parquet"], "pip install 'hpc_saidpo[export]'"),
    ):
        assert main([*map(str, arguments), "--what", "pairs"]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.startswith("export: ") and message in printed.err
    assert list(tmp_path.iterdir()) == []


def test_trl_trains_on_the_exported_pairs(run, tmp_path):
    import datasets
    import trl

    path = tmp_path / "pairs.jsonl"
    export(run, "pairs", "jsonl", path)
    rows = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["chosen"] == [row["chosen"] for row in read_back(path)] and len(rows) == 2 * len(TEXTS)
    policy, reference = load_micro(), load_micro()
    before = [p.detach().clone() for p in policy.model.parameters()]
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.1, learning_rate=1e-4, max_steps=1, per_device_train_batch_size=4,
        report_to=[], save_strategy="no", use_cpu=True, bf16=False, gradient_checkpointing=False, disable_dropout=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=policy.model, ref_model=reference.model, args=arguments, processing_class=policy.tokenizer,
        train_dataset=rows,
    )  # fmt: skip
    loss = trainer.train().training_loss
    assert math.isfinite(loss) and loss == pytest.approx(math.log(2), abs=1e-3)
    assert any(not torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
    assert all(torch.isfinite(p).all() for p in policy.model.parameters())
