"""Run folders of earlier versions stay readable: report, explain, export and compare return what they returned then.

tests/data/run-0.1.0.tar.gz holds two runs and an evaluation that version 0.1.0 made, without weights, pictures and logs
(experiment=tiny pool.n=120 pool.held_out=10 clusters.n=2 sampler.n_questions=24; one run has sampler.rule=error and two
iterations, the other frontier and one), and the output of that version's commands for them (expected/).
"""

import csv
import json
import re
import tarfile
from pathlib import Path

import pytest

from hpc_saidpo.cli.compare import main
from hpc_saidpo.cli.explain import main as explain_verb
from hpc_saidpo.cli.export import main as export_verb
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Outcome, Pairs, Rollouts
from hpc_saidpo.report.console import table
from hpc_saidpo.report.explain import explain
from hpc_saidpo.report.export import export
from hpc_saidpo.report.facts import COMPLETE, Facts
from hpc_saidpo.report.page import page
from hpc_saidpo.store.check import check
from hpc_saidpo.store.layout import newest_policy
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage

ARCHIVE = Path(__file__).parents[1] / "data" / "run-0.1.0.tar.gz"
INTERVAL = re.compile(r" ?\[[^\]]*\]")
NUMBER = re.compile(r"\d[\d.,]*")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_compare(earlier, tmp_path, capsys):
    assert main([str(earlier / "runs"), "--out", str(tmp_path)]) == 0
    for name in ("comparison.csv", "sweep.csv"):  # they may have further columns
        now, then = (list(csv.DictReader((p / name).open())) for p in (tmp_path, earlier / "expected"))
        assert [{key: row[key] for key in then[0]} for row in now] == then, name
    now, then = (list(csv.DictReader((p / "evaluations.csv").open())) for p in (tmp_path, earlier / "expected"))
    for row, expected in zip(now, then, strict=True):  # intervals are computed from the rollouts, and wider than then
        assert {name for name in expected if row[name] != expected[name]} == {"low95", "high95"}
        assert row["low95"] < expected["low95"] < expected["high95"] < row["high95"]
    html = (tmp_path / "sweep.html").read_text()
    printed, expected = capsys.readouterr().out, (earlier / "expected" / "compare.txt").read_text()
    rows = [line for line in expected.splitlines() if "  " in line]
    cells = [cell for row in rows for cell in re.split(r"\s{2,}", INTERVAL.sub("", row))]
    assert len(rows) == 8 and all(cell in INTERVAL.sub("", text) for cell in cells for text in (printed, html))


@pytest.mark.parametrize("what", ["pairs", "rollouts"])
def test_export(earlier, tmp_path, what):
    export(earlier / "runs" / "error", what, "jsonl", tmp_path / "out.jsonl")
    now, then = (
        [*map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "out.jsonl", earlier / "expected" / f"{what}.jsonl")
    )
    of_pool = [row for row in now if not row.get("stage", "").startswith("evaluate/")]  # it had no others, and no texts
    assert [{key: row[key] for key in then[0]} for row in of_pool] == then
    assert what == "pairs" or {(row["question_text"], row["gold"]) for row in now} == {(None, None)}


def test_what_an_earlier_run_lacks_is_said_in_one_line(earlier, tmp_path, capsys):
    run = earlier / "runs" / "error"
    question = json.loads((earlier / "expected" / "explain.jsonl").read_text().splitlines()[0])["question"]
    lacks = f"{run} was made by an earlier version: it has the texts of prompts and responses, but not their token ids"
    assert export_verb([str(run), "--what", "pairs", "--format", "jsonl", "--out", str(tmp_path / "pairs.jsonl")]) == 0
    assert capsys.readouterr().err == f"export: {lacks}\n"
    assert explain_verb([str(run), "--iteration", "0", "--question", question]) == 0
    assert capsys.readouterr().err == f"explain: {lacks}\n"


def test_verify(earlier):
    assert not [f for f in check(earlier / "runs" / "error").findings if "model" not in str(f.path)]


def test_tables_of_an_earlier_run_have_no_token_ids(earlier):
    stage = Stage(earlier / "runs" / "error" / "iter-000" / "explore")
    rollouts = stage.read_chunks(Rollouts)
    assert len(rollouts) > 100 and not any(map(len, rollouts.tokens_R)) and all(rollouts.text_R)
    pairs = Stage(earlier / "runs" / "error" / "iter-000" / "pairs").read("pairs", Pairs)
    assert len(pairs) and not any(map(len, [*pairs.prompt_tokens_B, *pairs.chosen_tokens_B]))


def test_an_earlier_run_is_not_resumed(earlier):
    folder = earlier / "runs"
    run = RunDir(folder / "error", World(), {}, print)
    with pytest.raises(RunError, match=r"DONE: has layout 2, this version resumes 3: continue with the version that"):
        run.stage(0, "pairs", lambda stage: None, lambda stage: None)


def numbers(subject: str, text: str) -> list[str]:
    """The numbers of a line, without the interval of the error rate: the earlier version computed another one."""
    return NUMBER.findall(INTERVAL.sub("", text) if subject == "error rate" else text)


def test_explain(earlier):
    """Subjects and numbers are as they were; words may change."""
    for line in (earlier / "expected" / "explain.jsonl").read_text().splitlines():
        row = json.loads(line)
        run = earlier / "runs" / row["run"]
        lines = [
            [subject, text.replace(str(run), row["run"])]
            for subject, text in explain(run, row["iteration"], row["question"])
        ]
        assert [subject for subject, _ in lines] == [subject for subject, _ in row["lines"]]
        assert [numbers(*line) for line in lines] == [numbers(*line) for line in row["lines"]]


def test_report(earlier):
    run = earlier / "runs" / "error"
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    outcome = Outcome(records[0]["scores_before"], records, str(newest_policy(run)))
    steps = {r["iteration"]: Stage(run / f"iter-{r['iteration']:03d}" / "policy").read_json("steps") for r in records}
    now = page(Facts("error", COMPLETE, "", outcome, "today", steps=steps))
    assert "iter-001/policy/model</code>" in now and "<h2>Where the questions went" in now and "<h2>DPO" in now
    then = (run / "report.html").read_text()
    cells = re.findall(r"<td>([\d.]+ %)</td>", then[: then.index("<h2>")])
    assert cells and all(cell in now for cell in cells)
    assert table(outcome).count("\n") == 6
