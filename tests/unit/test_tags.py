"""Questions tagged by a language model: one request each, stored replies, resumed, exported and imported."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.chat_server import GOOD, completion, config_for, serving
from support.make import MICRO
from support.tags import QUESTIONS, SUMS, answering, questions_of, tag

from hpc_saidpo import settings
from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.doctor import inputs
from hpc_saidpo.errors import Ended, RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.tags import batch, stage
from hpc_saidpo.tags.endpoint import Server
from hpc_saidpo.tags.local import Local
from hpc_saidpo.tags.replies import Replies, hash_of


@pytest.fixture
def logged(monkeypatch, caplog):
    """The log of a run."""
    monkeypatch.setattr(logging.getLogger("hpc_saidpo"), "propagate", True)
    caplog.set_level(logging.INFO, "hpc_saidpo")
    return caplog


def test_a_question_needs_one_request_also_when_the_pool_has_grown(tmp_path, logged):
    with serving(answer=answering()) as server:
        config = config_for(server)
        assert tag(tmp_path, config, QUESTIONS[:3]) == [SUMS] * 3 and len(server.seen) == 3
        assert tag(tmp_path, config, QUESTIONS[:3]) == [SUMS] * 3 and len(server.seen) == 3
        assert tag(tmp_path, config, [*QUESTIONS[::-1], QUESTIONS[0]]) == [SUMS] * 6
        assert sorted(questions_of(server)) == [q.text for q in QUESTIONS]
        assert "5 distinct questions, 2 were sent to the tagger for this pool" in logged.text
        other = replace(config, max_new_tokens=20)
        assert tag(tmp_path, other) == [SUMS] * 5 and len(server.seen) == 10  # other replies
        tag(tmp_path, replace(config, endpoint=replace(config.endpoint, url="http://127.0.0.1:9/v1")))  # the same


def test_a_reply_that_cannot_be_read_is_requested_again_and_then_replaced(tmp_path, logged):
    def reply(question):
        if question.startswith("What is 4"):
            return GOOD if question.endswith("JSON list only.") else "It is five."
        return "No idea." if question[8] in "01" else GOOD

    with serving(answer=answering(reply)) as server:
        points = tag(tmp_path, config_for(server))
        assert len(server.seen) == 8
    assert points == [("untagged",), ("sums",), *[("algebra", "linear equation")] * 3]
    assert "3 of 5 questions tagged, 2 distinct knowledge points; 1 have their subject instead, 1 are" in logged.text
    assert "1 replies became readable after a second request; 2 replies cannot be read, 0 are missing" in logged.text
    (made,) = (tmp_path / "runs/.shared").glob("tags-*")
    replies = Stage(made).read_chunks(Replies)
    kept = dict(zip(replies.id_Q, zip(replies.reply_Q, replies.n_asked_Q.tolist(), strict=True), strict=True))
    assert kept[hash_of(QUESTIONS[0].text)] == ("No idea.", 2) and kept[hash_of(QUESTIONS[2].text)] == (GOOD, 1)


def test_replies_from_before_a_failure_are_not_requested_again(tmp_path):
    def three(handler):
        if len(handler.server.seen) > 3:
            handler.reply(403, b"the budget is used up")
        else:
            handler.reply(200, completion(GOOD))

    with serving(three, answer=answering()) as server:
        config = replace(config_for(server, concurrency=1), chunk_questions=2)
        with pytest.raises(RunError, match="the budget is used up"):
            tag(tmp_path, config)
        before = questions_of(server)
        server.misdeeds = ()
        assert len(tag(tmp_path, config)) == 5
        after = questions_of(server)[4:]
    # Of two chunks the first was whole.
    assert len(before) == 4 and len(after) == 3 and set(before[:2]).isdisjoint(after) and set(before[2:]) < set(after)


def exported(tmp_path, config, questions=QUESTIONS):
    with pytest.raises(Ended) as caught:
        tag(tmp_path, config, questions)
    path = Path(config.file)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines, str(caught.value)


def test_requests_go_out_as_a_file_and_answers_come_back(tmp_path, logged):
    out = settings.Tags(mode="export", model="m", file=str(tmp_path / "requests.jsonl"))
    lines, reply = exported(tmp_path, out)
    assert "5 requests" in reply and "tags.mode=import" in reply
    assert sorted(line["custom_id"] for line in lines) == sorted(hash_of(q.text) for q in QUESTIONS)
    with serving(answer=answering()) as server:
        Server(config_for(server)).answer([lines[0]["body"]["messages"]])
        assert server.seen[0][2] == lines[0]["body"]  # the request to a server
    assert {line["method"] + line["url"] for line in lines} == {"POST/v1/chat/completions"}

    def answer(i, status=200, **others):
        body = json.loads(completion('["sums", "whole numbers"]'))
        return {"custom_id": hash_of(QUESTIONS[i].text), "response": {"status_code": status, "body": body}, **others}

    first = [
        answer(0), answer(1, status=500), answer(2, error={"code": "expired"}),
        {"id": "q3", "tags": ["Sums", "whole numbers"]}, {"custom_id": "of another pool", "content": GOOD},
    ]  # fmt: skip
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n\n" for line in first))
    back = settings.Tags(mode="import", model="m", file=str(path))
    assert tag(tmp_path, back) == [SUMS, ("sums",), ("sums",), SUMS, ("sums",)]
    assert "0 replies cannot be read, 3 are missing" in logged.text and "2 requests failed" in logged.text

    lines, _ = exported(tmp_path, out)
    assert sorted(line["custom_id"] for line in lines) == sorted(hash_of(QUESTIONS[i].text) for i in (1, 2, 4))
    path.write_text(json.dumps({"id": hash_of(QUESTIONS[1].text), "tags": "sums, whole numbers"}) + "\n")
    more = tmp_path / "more.jsonl"
    more.write_text(
        "".join(json.dumps({"custom_id": f"q{i}", "content": '["sums", "whole number'}) + "\n" for i in (2, 4))
    )
    again = settings.Tags(mode="import", model="m", file=(str(path), str(more)))
    assert tag(tmp_path, again) == [SUMS, SUMS, ("sum",), SUMS, ("sum",)]
    lines, reply = exported(tmp_path, out)
    assert not lines and "all of them have answers" in reply
    with serving() as server:  # the same model behind a server has answered all of it
        assert tag(tmp_path, config_for(server)) == tag(tmp_path, again) and not server.seen


def test_lines_that_are_no_answers_are_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    bad = ["{", '"text"', '{"content": "x"}', '{"custom_id": "a"}', '{"custom_id": "a", "response": {"body": {}}}',
           '{"custom_id": "a", "content": null}']  # fmt: skip
    path.write_text("\n".join(['{"id": 7, "tags": ["ok then"]}', *bad]))
    with pytest.raises(RunError) as caught:
        batch.read([str(path)], 4)
    message = str(caught.value)
    assert "6 lines are no answers" in message and "and 3 more" in message
    assert [f"{path}:{n}: " in message for n in range(1, 6)] == [False, True, True, True, False]


def test_points_are_sorted_into_skills(tmp_path, logged):
    skills = tmp_path / "skills.txt"
    skills.write_text("# ours\nAdding numbers\n\nGeometry\n")

    def reply(request):
        last = request["messages"][-1]["content"]
        if "- Adding numbers\n- Geometry" not in last:
            return completion('["sums", "whole numbers", "addition"]')
        return completion("whatever" if '"whole number"' in last else "Adding Numbers.")

    with serving(answer=reply) as server:
        config = replace(config_for(server), skills=str(skills))
        assert tag(tmp_path, config) == [("Adding numbers", "whole number")] * 5
        assert len(server.seen) == 5 + 3 + 1 and "2 of 3 knowledge points sorted" in logged.text
        tag(tmp_path, config)
        assert len(server.seen) == 9
    skills.write_text("areas\nArea\n")
    with pytest.raises(RunError, match=r"skills\.txt: line 2: 'Area' is the same as 'areas'"):
        tag(tmp_path, config)


def test_a_damaged_artefact_is_made_again_from_what_others_know(tmp_path):
    with serving(answer=answering()) as server:
        tag(tmp_path, config_for(server), QUESTIONS[:4])
        (older,) = (tmp_path / "runs/.shared").glob("tags-*")
        tag(tmp_path, config_for(server))
        (newer,) = set((tmp_path / "runs/.shared").glob("tags-*")) - {older}
        (newer / "shard-000000-000000.h5").write_bytes(b"")
        assert tag(tmp_path, config_for(server)) == [SUMS] * 5 and len(server.seen) == 6
        (older / "known.h5").write_bytes(b"")
        assert tag(tmp_path, config_for(server), QUESTIONS[1:]) == [SUMS] * 4 and len(server.seen) == 6


def test_a_run_keeps_its_knowledge_points(tmp_path):
    def prepared(points, accept=False):
        path, run = tmp_path / "answers.jsonl", RunDir(tmp_path / "runs/run", World(), {}, print)
        path.write_text("".join(json.dumps({"id": q.id, "tags": points}) + "\n" for q in QUESTIONS))
        config = settings.Tags(mode="import", model="m", file=str(path))
        return stage.tag(QUESTIONS, config, settings.Policy(path=MICRO), settings.Engine(), run, accept)

    (tmp_path / "runs/run").mkdir(parents=True)
    assert prepared(["sums"]) == [("sum",)] * 5
    (tmp_path / "runs/run/draw.h5").touch()
    assert prepared(["sums"]) == [("sum",)] * 5
    shutil.rmtree(tmp_path / "runs/.shared")
    with pytest.raises(RunError, match=r"made with another tags .*run\.name"):
        prepared(["products"])
    assert prepared(["products"], accept=True) == [("product",)] * 5 == prepared(["products"])


def test_the_files_that_a_run_reads_for_its_tags():
    def read(*overrides):
        config = from_overrides(("pool.path=p.jsonl", "policy.path=p", *overrides))
        return {(i.key, i.value) for i in inputs.list_inputs(config) if i.key.startswith("tags")}

    assert read() == read("tags.mode=endpoint", "tags.model=m") == set()
    assert read("tags.mode=model", f"tags.model={MICRO}", "tags.skills=s.txt") == {
        ("tags.model", MICRO), ("tags.skills", "s.txt"),
    }  # fmt: skip
    assert read("tags.mode=import", "tags.model=m", "tags.file=[a,b]") == {("tags.file", "a"), ("tags.file", "b")}
    assert read("tags.mode=import", "tags.model=m", "tags.file=a", "clusters.n=1") == set()


def test_the_keys_that_a_mode_needs():
    for wrong in (
        {"mode": "model"},
        {"mode": "export", "model": "m"},
        {"mode": "export", "model": "m", "file": ("a", "b")},
    ):
        with pytest.raises(ValueError, match=f"mode={wrong['mode']}"):
            settings.Tags(**wrong)


def test_a_model_without_a_chat_template_is_refused(tmp_path, micro):
    local = Local("f", lambda: micro, settings.Engine(), 8)
    with pytest.raises(RunError, match=r"tags\.model=.*no chat template"):
        tag(tmp_path, settings.Tags(mode="model", model=MICRO), local=local)
