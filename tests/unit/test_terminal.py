"""No verb and no tool prints a text from outside as it is: a terminal would obey it, and a forged line look like ours.

The texts are those of pools, ids, file and run names, servers, programs, libraries. Each test feeds HOSTILE to a
program and looks at everything that it prints and writes for reading.
"""

import io
import json
import logging
import re
import shutil
import sys
import unicodedata
from dataclasses import asdict
from pathlib import Path

import bundle
import numpy as np
import pytest
import submit
import yaml
from support.make import make_rollouts
from support.pools import left_out, load, write_jsonl

from hpc_saidpo import errors, progress, screen, settings, terminal
from hpc_saidpo.cli import compare, doctor, explain, export, failures, grade, main, plan, show, status, verify
from hpc_saidpo.doctor.finding import judge
from hpc_saidpo.doctor.finding import table as table_of_findings
from hpc_saidpo.errors import RunError, shown, visible, words_of
from hpc_saidpo.evaluate.table import text as table_of_evaluation
from hpc_saidpo.records import CORRECT, WRONG, Draw, Outcome, Rollouts
from hpc_saidpo.report import console, page
from hpc_saidpo.report.facts import ENDED, Answer, Change, Example, Facts, Gain, Place
from hpc_saidpo.store.stage import Stage

FORGED = "graded: correct 100.0 %"
# Clear the screen, set its title, write backwards, end the text, C1, half of a character, line ends; a line of ours.
HOSTILE = f"a\x1b[2J\x1b]0;t\x07\u202eb\u2066\x00\x85\x9b31m\ud800\r\u2028\n{FORGED}\n"
IN_A_NAME = HOSTILE.replace("\x00", "").replace("\ud800", "\udcff").replace("/", "")  # of a file


def assert_harmless(*texts: str) -> None:
    for text in texts:
        odd = {c for c in text if not (c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs")}
        assert not odd, (odd, text)
        assert FORGED not in [line.strip() for line in text.splitlines()], text


@pytest.fixture
def printed(capsys):
    """Run a program in this process: (exit code, what it printed). What it printed is harmless."""

    def run(program, *words) -> tuple[int, str]:
        try:
            code = program([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert_harmless(captured.out, captured.err)
        return code, captured.out + captured.err

    yield run
    for name in ("stdout", "stderr"):
        setattr(sys, name, getattr(getattr(sys, name), "unguarded", getattr(sys, name)))


def test_texts_are_escaped_and_cut():
    assert (
        visible("a\x1b[2J\u202e\x00\x85\ud800\r\t\n½ あ\u00a0b")
        == "a\\x1b[2J\\u202e\\x00\\x85\\ud800\\r\\t\n½ あ\u00a0b"
    )
    assert shown("a\nb\u2028") == "a\\nb\\u2028" and shown(Path("a\tb")) == "a\\tb" and shown("é" * 9, 9) == "é" * 9
    assert shown("x" * 1234, 4) == "xxxx... (1,234 characters)"
    assert words_of(KeyError(HOSTILE)).isprintable() and words_of(ValueError("a\n  b")) == "a b"
    assert len(words_of(ValueError("x" * 10**6))) < 350
    long = errors.message("problem" + "x" * 100_000 + "remedy")
    assert long.startswith("problem") and long.endswith("remedy") and len(long) < 10_200 and "run.message_chars" in long


def test_the_length_of_messages_is_a_setting(monkeypatch):
    monkeypatch.setattr(errors, "_message_chars", errors._message_chars)
    errors.limit_messages(200)
    assert len(errors.message("x" * 1000)) < 300 and "run.message_chars=200" in errors.message("x" * 1000)


def test_whatever_prints_is_guarded(printed, capsys):
    terminal.guard()
    terminal.guard()
    print(HOSTILE)
    sys.stderr.writelines([HOSTILE])
    captured = capsys.readouterr()
    assert "\\x1b[2J" in captured.out and "\\x1b[2J" in captured.err
    for text in captured:
        assert_harmless(text.replace(f"\n{FORGED}", ""))
    terminal.clear()
    assert capsys.readouterr().out == "\x1b[H\x1b[2J"  # of this program


def test_a_stream_that_lacks_a_letter_gets_an_escape(monkeypatch):
    raw = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", raw)
    terminal.guard()
    print("½ \ud800")
    raw.flush()
    assert raw.buffer.getvalue() == b"\\xbd \\ud800\n"


@pytest.fixture
def logging_to(tmp_path):
    """Log to a file and to the console, as root does."""
    log = progress.log
    before = (log.handlers[:], log.level, log.propagate)
    progress.start_logging(tmp_path / "rank-0.log", is_root=True)
    yield tmp_path / "rank-0.log"
    for handler in log.handlers:
        handler.close()
    log.handlers[:], log.level, log.propagate = before


def test_the_log_has_one_line_for_each_message(logging_to, printed, capsys):
    terminal.guard()
    progress.log.info("question %s of %s: %d", HOSTILE, Path("a\nb"), 3)
    progress.log.warning("%s", ValueError(HOSTILE))
    progress.log_lines("two\nlines\x1b", logging.ERROR)
    progress.log.info("x" * 100_000)
    written, out = logging_to.read_text(encoding="utf-8"), capsys.readouterr().out
    assert_harmless(written, out)
    assert len(written.splitlines()) == len(out.splitlines()) == 5 and len(out) < 12_000
    assert out.splitlines()[0].startswith("question a\\x1b[2J") and out.splitlines()[0].endswith(" of a\\nb: 3")


def test_the_display_moves_the_cursor_and_lines_go_above_it(logging_to, printed, monkeypatch, capsys):
    for module, name, value in ((progress, "columns", 60), (screen, "columns", 60), (screen, "is_shared", True)):
        monkeypatch.setattr(module, name, lambda value=value: value)
    terminal.guard()
    with progress.show(HOSTILE, 3, is_root=True) as task:
        progress.log.info("between %s", HOSTILE)
        task.begin(0, 0)
        task.end(0, 0)
    shown = capsys.readouterr().err  # one stream
    assert "\x1b[2K" in shown and shown.index("between") < shown.rindex("━") < shown.rindex("done in")
    assert_harmless(re.sub(r"\x1b\[(?:\?25[hl]|2K|1A|[\d;]*m)|\r", "", shown))


def test_failures_are_reported_harmlessly(printed):
    def end(error):
        def program(words):
            terminal.guard()
            with failures.failures_end_the_job(None):
                raise error

        return program

    code, text = printed(end(RunError(f"pool.path={shown(HOSTILE)}: no such file")))
    assert code == failures.EXIT_USER and "hpc_saidpo: pool.path=a\\x1b[2J" in text
    code, text = printed(end(RuntimeError(HOSTILE.replace("\n", " ") + "x" * 10**6)))
    assert code == failures.EXIT_BUG and "Traceback" in text and len(text) < 12_000


@pytest.mark.parametrize(
    "words", [[IN_A_NAME], ["grade", "--" + IN_A_NAME], ["explain", IN_A_NAME, "--iteration", IN_A_NAME]]
)
def test_a_wrong_command(printed, words):
    assert printed(main.main, *words)[0] == 2


def test_grade(printed, tmp_path):
    path = tmp_path / f"{IN_A_NAME}.jsonl"
    row = {"prediction_text": HOSTILE, "gold": HOSTILE + "1", "verifier": "exact", "expected": True}
    program = f"```python\ndef f():\n    raise ValueError({HOSTILE!r} * 100)\n```"
    write_jsonl(path, row, {**row, "verifier": "code", "prediction_text": program, "gold": "f()"})
    code, text = printed(grade.main, path, "--out", tmp_path / "out.jsonl")
    assert code == 0 and "as expected: 0 of 2" in text and len(text) < 4000
    assert_harmless((tmp_path / "out.jsonl").read_text())
    for bad in ("{", json.dumps({**row, "verifier": HOSTILE}), json.dumps({"gold": HOSTILE}), "\x1b[2J"):
        write_jsonl(path, bad)
        assert printed(grade.main, path)[0] == 2
    assert printed(grade.main, tmp_path / "no" / IN_A_NAME)[0] == 2


@pytest.fixture
def run(tmp_path) -> Path:
    """A run of a stranger: every text in it is hostile."""
    path = tmp_path / "runs" / IN_A_NAME
    path.mkdir(parents=True)
    other = path.parent / "other"
    other.mkdir()
    for place, seed in ((path, 0), (other, 1)):
        config = {"run": {"seed": seed, "name": HOSTILE}, "loop": {"iterations": 1}, "policy": {"path": HOSTILE}}
        config |= {"clusters": {"n": HOSTILE * (seed + 1)}, "sampler": {"rule": HOSTILE}, "rollouts": {"k": 2}}
        config |= {"difficulty": {"too_hard": 0.0}, "pairs": {}, "evaluate": {"benchmarks": [HOSTILE]}}
        (place / "config.yaml").write_text(yaml.safe_dump(config))
        score = {"accuracy": 0.5, "low95": 0.25, "high95": 0.75}
        line = {"iteration": 0, "explored_questions": 4, "pairs": 2, "pair_yield": 0.5, "signatures": [HOSTILE]}
        line |= {"scores": {HOSTILE: score}, "scores_before": {HOSTILE: score}, "entropy_share": 0.5}
        (place / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (place / "iter-000").mkdir()
        (place / "iter-000" / "DONE").touch()
    record = {"written": 0.0, "beat_s": 10.0, "state": "running", "message": HOSTILE, "iterations": 3, "place": HOSTILE}
    record |= {"place_s": 1.0, "waits_for": HOSTILE, "silent": [HOSTILE], "spent_s": {HOSTILE: 1.0}, "done": 1}
    record |= {"total": 2, "done_before": 0, "task_s": 1.0, "counts": {}}
    (path / "progress.json").write_text(json.dumps(record))
    start = {"hosts": [HOSTILE], "slurm": {"SLURM_JOB_ID": HOSTILE}, "packages": {"torch": HOSTILE}}
    (path / "env.json").write_text(json.dumps([start]))
    (other / "env.json").write_text(json.dumps([{**start, "packages": {"torch": "2"}}]))
    probe = Stage(path / "iter-000" / "probe", {"iteration": 0, "stage": "probe"})
    rows = make_rollouts([(q, k, (CORRECT, WRONG)[k], 3, 1, True, HOSTILE) for q in range(2) for k in range(2)])
    ids = [HOSTILE + str(q) for q in rows.question_R]
    probe.prepare()
    probe.write_chunk(0, Rollouts(*rows.__dict__.values()) if ids == rows.id_R else _with_ids(rows, ids))
    probe.mark_done()
    draw = Stage(path / "iter-000" / "draw", {"iteration": 0, "stage": "draw"})
    draw.prepare()
    draw.write("draw", Draw(np.arange(2), np.ones(2), np.zeros(2)))
    draw.write("history", Draw(np.arange(2), np.ones(2), np.zeros(2)))
    draw.mark_done()
    (path / "iter-000" / "probe" / f"{IN_A_NAME}.h5").write_bytes(b"x")
    return path


def _with_ids(rows: Rollouts, ids: list[str]) -> Rollouts:
    from dataclasses import replace

    return replace(rows, id_R=ids)


def test_explain(printed, run):
    code, text = printed(explain.main, run, "--iteration", 0, "--question", HOSTILE)
    assert code == 2 and "config.yaml is no configuration of a run" in text
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"sampler": asdict(settings.Sampler())}))
    code, text = printed(explain.main, run, "--iteration", 0, "--question", HOSTILE)
    assert code == 2 and "no question with the id" in text and "some that were: a\\x1b[2J" in text
    assert printed(explain.main, run, "--iteration", 7, "--question", HOSTILE)[0] == 2


def test_show(printed, run):
    """What a model writes can pass for a line of this program neither as text nor as JSON."""
    code, text = printed(show.main, run)
    assert code == 0 and text.count("\nresponse ") == 4 and "\\x1b[2J" in text
    assert [line for line in text.splitlines() if line.strip(" |") == FORGED] == [f"  |{FORGED}"] * 4
    code, text = printed(show.main, run, "--jsonl")
    assert code == 0 and [json.loads(line)["response"] for line in text.splitlines()] == [HOSTILE] * 4
    assert printed(show.main, run, "--question", HOSTILE)[0] == printed(show.main, run, "--stage", HOSTILE)[0] == 2


def test_export(printed, run, tmp_path):
    out = tmp_path / IN_A_NAME
    code, text = printed(export.main, run, "--what", "rollouts", "--format", "jsonl", "--out", out)
    assert code == 0 and "4 rows of rollouts" in text and out.exists()
    assert printed(export.main, run.parent, "--what", "pairs", "--format", "jsonl", "--out", out)[0] == 2


def test_status(printed, run):
    code, text = printed(status.main, run.parent)
    assert code == 0 and "SILENT" in text and max(map(len, text.splitlines())) <= 80
    assert any(state["message"] for state in json.loads(printed(status.main, run.parent, "--json")[1]))
    assert printed(status.main, run / IN_A_NAME)[0] == 2


def test_compare(printed, run, tmp_path):
    code, text = printed(compare.main, run.parent, "--out", tmp_path / "out")
    assert code == 0 and "a\\x1b[2J" in text
    for name in ("sweep.html", "sweep.csv", "comparison.csv", "evaluations.csv"):
        written = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert_harmless(written if name.endswith("html") else written.replace(FORGED, ""))  # a cell may have lines
    assert printed(compare.main, run.parent, "--by", HOSTILE.replace("\n", ""))[0] == 2
    assert printed(compare.main, run)[0] == 2


def test_verify(printed, run):
    code, text = printed(verify.main, run)
    assert code == 1 and "is not an HDF5 file" in text
    assert printed(verify.main, run / "iter-000")[0] == 2


def test_report(run):
    score = {"accuracy": 0.5, "low95": 0.4, "high95": 0.6, "n_questions": 4}
    record = {
        "iteration": 0, "probe_pass_rate": 0.5, "pair_yield": 0.25, "cluster_weight": [0.5, 2.0],
        "cluster_error_rate": [0.25, None], "explored_questions": 30, "pairs": 7, "cluster_drawn": [1, 2],
        "scores_before": {HOSTILE: score}, "scores": {HOSTILE: score}, "signatures": [HOSTILE],
    }  # fmt: skip
    health = {"n_clusters": 2, "sizes": [3, 1], "top_tags": [[HOSTILE], ["$\\frac{"]], "warnings": [HOSTILE]}
    health |= {"largest_share": 0.75, "effective_clusters": 1.5, "clusters_under_5": 2, "probed_per_cluster": 1.0}
    health |= {"silhouette": None, "backend": HOSTILE, "vectors": 3}
    outcome = Outcome({HOSTILE: score}, [record], HOSTILE, HOSTILE, health=health)
    answer = Answer("wrong", HOSTILE, HOSTILE)
    about = Facts(
        IN_A_NAME, ENDED, HOSTILE, outcome, "today", {}, {"policy": {"path": HOSTILE}}, HOSTILE,
        [{"command": HOSTILE, "hosts": [HOSTILE]}], {HOSTILE: Place(3.0, 4.0, [(1.0, 2.0)])}, {},
        {HOSTILE: Gain(score, score, 0.1, 0.0, 0.2)}, (HOSTILE, [Example(HOSTILE, HOSTILE, HOSTILE, answer, answer)]),
        [Change(0, HOSTILE, HOSTILE, HOSTILE)],
    )  # fmt: skip
    for text in (page.page(about), console.table(outcome), console.ending(Path(IN_A_NAME), about)):
        assert_harmless(text.replace(f"\n{FORGED}", ""))
        text.encode()


def test_tables():
    row = {"by": "all", "value": "", "n_samples": 1, "temperature": 0.0, "n_questions": 1, "truncated": 0.5}
    row |= {"ungradable": 0, **dict.fromkeys(("accuracy", "low95", "high95", "majority", "tokens"))}
    rows = [{**row, "benchmark": HOSTILE}, {**row, "benchmark": HOSTILE, "by": "subject", "value": HOSTILE}]
    assert_harmless(table_of_evaluation(HOSTILE, rows, [HOSTILE]))
    assert_harmless(table_of_findings([judge(HOSTILE[:1], HOSTILE, failure=HOSTILE)]))


def test_doctor_and_plan(printed, tmp_path):
    hostile = "".join(c for c in IN_A_NAME if c.isprintable() or c in "\x1b\u202e").replace("[", "").replace("]", "")
    overrides = (
        "experiment=paper_qwen7b",
        f"run.root={tmp_path}",
        f"pool.path='{hostile}'",
        f"policy.path='{hostile}'",
    )
    code, text = printed(doctor.main, *overrides)
    assert code == 1 and "no such file" in text
    assert printed(doctor.main, f"pool.path={HOSTILE}")[0] == 2
    assert printed(plan.main, HOSTILE.replace("=", ""))[0] == 2


def test_submit(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("experiment=tiny", f"run.root={tmp_path}/runs", f"policy.path='{visible(HOSTILE[:1])}\x1b[2J\u202e'")
    code, text = printed(submit.main, "rollouts", "--dry-run", "--", *words)
    assert code == 0 and "run.name=" in text
    for name in ("rollouts", HOSTILE, str(tmp_path / IN_A_NAME)):
        assert printed(submit.main, name, "--dry-run", "--", "experiment=tiny", f"sampler.alpha={HOSTILE}")[0] == 2
    assert printed(submit.main, "rollouts", HOSTILE)[0] == 2


def test_bundle(printed, tmp_path):
    folder = tmp_path / IN_A_NAME
    (folder / "inputs").mkdir(parents=True)
    (folder / "inputs" / IN_A_NAME).touch()
    facts = {"size": 1, "sha256": "0" * 64}
    manifest = {"python": HOSTILE, "machine": HOSTILE, "torch": HOSTILE, "ships": [], "overrides": [HOSTILE]}
    manifest |= {"missing": [{"name": HOSTILE, "problem": HOSTILE, "remedy": HOSTILE}], "files": {"inputs/a": facts}}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))
    assert printed(bundle.main, "--verify", folder)[0] == 1
    shutil.rmtree(folder)
    assert printed(bundle.main, "--verify", folder)[0] == 1


def test_pools(printed, tmp_path, logging_to, capsys):
    terminal.guard()
    folder = tmp_path / IN_A_NAME
    folder.mkdir()
    good = {"question": HOSTILE.replace("\ud800", "") + "?", "answer": "1", "id": HOSTILE.replace("\ud800", "")}
    rows = [good, {**good, "question": "other"}, {HOSTILE: 1}, {**good, "verifier": HOSTILE}, {**good, "answer": ""}]
    write_jsonl(folder / f"{IN_A_NAME}.jsonl", *rows)
    with pytest.raises(RunError) as caught:
        load(tmp_path, tmp_path / "*" / "*.jsonl")
    assert_harmless(str(caught.value))
    load(tmp_path, tmp_path / "*" / "*.jsonl", on_bad="skip")
    assert all(problem["where"].isprintable() for problem in left_out(tmp_path))
    for name in ("p.csv", "p.parquet", "p.json", "p.arrow"):
        (folder / f"{IN_A_NAME}{name}").write_bytes(f"{HOSTILE},{HOSTILE}".encode("utf-8", "surrogatepass"))
        with pytest.raises(RunError) as caught:
            load(tmp_path, tmp_path / "*" / f"*{name}")
        assert_harmless(str(caught.value))
    assert_harmless(capsys.readouterr().out, logging_to.read_text(encoding="utf-8"))
