"""The page of a run: what it says of a complete, a depleted and an interrupted run, and that it is one file."""

import re
from types import SimpleNamespace

import pytest
from support.make import make_rollouts

from hpc_saidpo import settings
from hpc_saidpo.evaluate.benchmarks import Benchmark
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Outcome, Question, Rollouts
from hpc_saidpo.report import answers, charts, console
from hpc_saidpo.report.facts import COMPLETE, ENDED, INTERRUPTED, RUNNING, Change, Facts, Gain
from hpc_saidpo.report.page import page
from hpc_saidpo.report.verdict import sentence
from hpc_saidpo.report.writer import Moment, Writer
from hpc_saidpo.store.run import RunDir

HOSTILE = "<script>alert(1)</script>"
HEALTH = {
    "n_clusters": 2, "sizes": [30, 10], "top_tags": [["fractions"], [HOSTILE]], "largest_share": 0.75, "warnings": [],
    "effective_clusters": 1.5, "clusters_under_5": 0, "probed_per_cluster": 4.0, "silhouette": None,
}  # fmt: skip


def score(accuracy):
    return {
        "accuracy": accuracy,
        "low95": accuracy - 0.1,
        "high95": accuracy + 0.05,
        "n_questions": 40,
        "n_samples": 1,
    }


def record(t, before, after, **changes):
    return {
        "iteration": t, "probe_pass_rate": 0.5 + t / 10, "probe_questions": 20, "probe_usable_share": 0.2,
        "pair_yield": 0.25, "cluster_weight": [0.5, 2.0], "cluster_error_rate": [0.25, None], "cluster_drawn": [5, 25],
        "cluster_error_low95": [0.1, 0.0], "cluster_error_high95": [0.4, 1.0], "explored_questions": 30, "pairs": 7,
        "explored_too_easy_share": 0.15, "explored_too_hard_share": 0.6, "truncated_share": 0.1, "ungradable_share": 0,
        "rollout_tokens": 5000, "dpo/loss": 0.625, "signatures": [], "policy": "runs/a/iter/policy/model",
        "scores_before": {"exam": score(before)}, "scores": {"exam": score(after)}, **changes,
    }  # fmt: skip


RECORDS = [record(0, 0.4, 0.5), record(1, 0.5, 0.6)]
OUTCOME = Outcome({"exam": score(0.4)}, RECORDS, "runs/policy", health=HEALTH)
STEPS = [
    {"loss": 0.75, "preference_loss": 0.69, "rewards/margins": 0.1, "rewards/accuracies": 0.6, "logps/chosen": -3.0,
     "logps/rejected": -4.0, "ref_logps/chosen": -3.1, "ref_logps/rejected": -3.9, "grad_norm": 1.5}
] * 3  # fmt: skip
WHOLE = Facts(
    "a", COMPLETE, "", OUTCOME, "today", settings={"dpo": {"nll": 0.2, "loss": "sigmoid"}}, steps={0: STEPS, 1: STEPS},
    gains={"exam": Gain(score(0.4), score(0.6), 0.2, 0.05, 0.35)},
)  # fmt: skip


def test_the_verdict_is_one_sentence_with_its_interval():
    says = "2 iterations of training raised the accuracy on exam by 20.0 points (95 % interval +5.0 to +35.0), "
    assert sentence(WHOLE) == says + "from 40.0 % to 60.0 %."
    unclear = Facts("a", COMPLETE, "", OUTCOME, "", gains={"exam": Gain(score(0.4), score(0.4), -0.01, -0.1, 0.08)})
    assert "made no clear difference on exam: 1.0 points down (95 % interval -10.0 to +8.0)" in sentence(unclear)
    none = Facts("a", COMPLETE, "", Outcome({}, [record(0, 0.4, 0.5, scores={})], ""), "")
    assert "accuracy is unknown" in sentence(none) and "evaluate.benchmarks" in sentence(none)


def test_a_page_is_one_file_that_asks_for_nothing_and_runs_nothing():
    text = page(WHOLE)
    assert "<script" not in text and "&lt;script&gt;" in text  # a knowledge point
    assert not re.findall(r"""(?:src|href)=["'](?!#)|url\((?!["']?#)|@import|<link|<img|<iframe""", text)
    assert "default-src 'none'" in text and text.count("<svg") >= 8
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_loss_without_the_nll_stands_beside_ln_2():
    assert "without the NLL of chosen responses: ln 2 is that of a policy" in page(WHOLE)
    old = [{name: value for name, value in step.items() if name != "preference_loss"} for step in STEPS]
    earlier = Facts("a", COMPLETE, "", OUTCOME, "", settings={"dpo": {"nll": 0.2}}, steps={0: old})
    assert "with 0.2 × the NLL of chosen responses" in page(earlier) and "ln 2" not in page(earlier)


@pytest.mark.parametrize(
    "state, reason, says", [
        (ENDED, "depletion in iteration 0: raise it", "Ended by a failure signature:"),
        (INTERRUPTED, "stopped by Ctrl-C", "Interrupted:"),
        (RUNNING, "the last stage that was done is probe of iteration 0", "In progress:"),
    ],
)  # fmt: skip
def test_a_run_that_is_not_complete_says_why(state, reason, says):
    unfinished = {"iteration": 0, "explored_too_easy_share": 0.0, "explored_too_hard_share": 1.0, "pair_yield": 0.0}
    text = page(Facts("a", state, reason, Outcome({}, [], "p", stopped=reason), "today", unfinished))
    assert says in text and reason in text and "No iteration is finished, so there is no verdict yet." in text
    assert text.count("too hard") >= 1 and "100 %" in text


def test_a_signature_that_comes_again_is_one_line():
    records = [record(t, 0.4, 0.5, signatures=[f"stagnation: p = {t}", "grading: x"][: t + 1]) for t in range(2)]
    text = page(Facts("a", COMPLETE, "", Outcome({}, records, ""), ""))
    assert "<li>iterations 0, 1: stagnation: p = 1</li>" in text and "<li>iteration 1: grading: x</li>" in text


def test_ticks_are_round_and_cover_the_values():
    assert charts.ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert charts.ticks(0.683, 0.718) == [0.68, 0.69, 0.7, 0.71, 0.72]
    assert charts.ticks(0, 2, whole=True) == [0, 1, 2] and charts.ticks(0, 1, whole=True) == [0, 1]


def test_a_long_line_is_averaged_and_gaps_are_left_out():
    line = charts.Line("a", list(range(900)), [float(i % 3) if i % 7 else None for i in range(900)]).thinned()
    assert len(line.x) == charts.POINTS and line.x[:2] == [1, 4] and 0 <= min(line.y) <= max(line.y) <= 2
    text = charts.plot("p", [charts.Line("a", [0, 1, 2], [1.0, None, 3.0])], "iteration")
    assert text.count("<circle") == 2 and "nan" not in text
    assert "no figure yet" in charts.plot("p", [charts.Line("a", [0], [None])], "iteration")


def test_examples_show_every_kind_first():
    kinds = [(WRONG, True), (CORRECT, True), (WRONG, False), (UNGRADABLE, True), (CORRECT, True), (CORRECT, True)]

    def table(order):
        return make_rollouts([(q, 0, *kinds[i][:1], 5, 1, kinds[i][1], f"#### {q}") for q, i in enumerate(order)])

    questions = [Question(f"q{i}", "?", str(i)) for i in range(6)]
    shown = answers.compare(table([0, 1, 2, 3, 4, 5]), table([1, 0, 1, 1, 1, 1]), questions)
    assert [(e.before.kind, e.after.kind) for e in shown][:4] == [
        ("wrong", "right"), ("right", "wrong"), ("right", "right"), ("cut", "right"),
    ]  # fmt: skip
    assert shown[0].before.extracted == "0" and shown[0].gold == "0" and len(shown) == 6
    assert [e.after for e in answers.compare(table([0, 1]), None, questions)] == [None, None]
    assert answers.compare(None, None, questions) == []


def test_the_page_is_written_from_the_run_folder_and_a_failure_ends_nothing(tmp_path, caplog):
    """Accuracy before and after is compared question by question, from the stored evaluations."""
    config = {"run": {"name": "a"}, "policy": {"path": "p"}}
    with RunDir.open(settings.Run(root=str(tmp_path), name="a"), config, {"started": "now"}, World()) as run:
        for place, right in (("base", range(4)), (0, range(12))):
            rows = [(q, 0, int(q in right), 3, 1, True, f"#### {q}") for q in range(20)]

            def roll(stage, rows=rows):
                stage.write_chunk(0, make_rollouts(rows))
                stage.seal(range(1), Rollouts)

            run.stage(place, "evaluate/exam", roll, lambda stage: stage.read_chunks(Rollouts))
        run.stage(0, "policy", lambda s: s.write_json("steps", STEPS), lambda s: None)
        plan = settings.Evaluate().plan(["held_out"])["held_out"]
        exam = Benchmark("exam", plan, [Question(f"q{i}", "?", str(i)) for i in range(20)])
        outcome = Outcome({"exam": score(0.2)}, [record(0, 0.2, 0.6)], "p", health=HEALTH)
        writer = Writer(run, config)
        writer.write(Moment(COMPLETE, "", outcome, {}, [exam]))
        gain = writer.last.gains["exam"]
        assert gain.change == pytest.approx(0.4) and 0.1 < gain.low95 < 0.4 < gain.high95 < 0.7
        assert len(writer.last.examples[1]) == answers.N_EXAMPLES and writer.last.steps == {0: STEPS}
        assert "exam by 40.0 points" in (run.path / "report.html").read_text()
        writer.write(Moment(COMPLETE, "", outcome, {}, [SimpleNamespace(name="exam", questions=None)]))  # kept
        assert "not written" not in caplog.text
        Writer(run, config).write(Moment(COMPLETE, "", Outcome({"exam": {}}, [{}], ""), {}))
        assert "report.html is not written: KeyError" in caplog.text


def test_a_setting_that_changed_on_the_way_is_shown_with_its_iteration(tmp_path):
    def open_run(k):
        config = {"run": {"name": "a", "seed": 0}, "rollouts": {"k": k}}
        own = settings.Run(root=str(tmp_path), name="a", accept_changes=True)
        return RunDir.open(own, config, {"started": "now"}, World()), config

    run, config = open_run(8)
    with run:
        rows = [(0, 0, 1, 3, 1, True, "x")]
        run.stage(0, "probe", lambda stage: stage.write("rollouts", make_rollouts(rows)), lambda stage: None)
        records = [record(0, 0.4, 0.5, config_hash=run.config_hash)]
        run.finish_iteration(0, records[0])
    run, config = open_run(4)
    with run:
        writer = Writer(run, config)
        writer.write(Moment(COMPLETE, "", Outcome({}, records, "p"), {}))
        assert writer.last.changes == [Change(1, "rollouts.k", 8, 4)]
        assert "Changed on the way" in (run.path / "report.html").read_text()
        assert len(writer.last.starts) == 2


def test_the_table_has_a_line_for_each_iteration_and_the_gain_of_the_run():
    header, body = console.rows(OUTCOME)
    assert header[0] == "iteration" and header[-1] == "exam before → after"
    assert [row[0] for row in body] == ["0", "1"] and body[1][-1] == "50.0 % → 60.0 %"
    assert body[0][1:6] == ["50.0 %", "0.25/0.25/0.25", "30", "25.0 %", "0.0 %"]
    assert console.gains(OUTCOME) == [
        "exam: 40.0 % [30.0, 45.0] before, 60.0 % [50.0, 65.0] after: +20.0 points (40 questions)"
    ]
    lines = console.table(OUTCOME).split("\n")
    assert lines[-1] == "policy: runs/policy" and len({len(line) for line in lines[1:4]}) == 1


def test_the_last_lines_name_the_report_and_three_commands(tmp_path):
    lines = console.ending(tmp_path / "a run", WHOLE).split("\n")
    assert lines[1] == sentence(WHOLE) and lines[2] == f"report: {tmp_path / 'a run' / 'report.html'}"
    assert [line.split()[:2] for line in lines[3:]] == [["hpc-saidpo", verb] for verb in ("show", "export", "compare")]
    assert f"'{tmp_path}/a run'" in lines[3]
