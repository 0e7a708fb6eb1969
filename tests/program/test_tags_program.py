"""The program with a tagger: an export and its import, and a model in the process of every rank."""

import json
import os
import signal
import subprocess
import time

import pytest
from support.converted import SMOLLM2, give_smollm2
from support.program import command, start, user_environment

from hpc_saidpo.store.stage import Stage
from hpc_saidpo.tags.replies import Replies


@pytest.mark.e2e
def test_a_run_ends_with_its_export_and_continues_with_the_answers(tmp_path):
    requests, answers = tmp_path / "out/requests.jsonl", tmp_path / "answers.jsonl"
    common = ("experiment=tiny", "loop.stop_after=prepare", f"run.root={tmp_path}/runs", "tags.model=m", "clusters.n=2")
    done = start(*common, "tags.mode=export", f"tags.file={requests}")
    assert done.returncode == 0 and "stopped after the export of" in done.stdout, done.stdout + done.stderr
    assert f"requests to {requests}" in done.stdout
    ids = [json.loads(line)["custom_id"] for line in requests.read_text().splitlines()]
    answers.write_text("".join(json.dumps({"id": id, "tags": ["ab"[i % 2] * 3]}) + "\n" for i, id in enumerate(ids)))
    done = start(*common, "tags.mode=import", f"tags.file={answers}")
    assert done.returncode == 0 and "2 distinct knowledge points" in done.stdout, done.stdout + done.stderr
    assert f"{len(ids)} distinct questions" in done.stdout and "0 are missing" in done.stdout


TEXTS = [
    "What is 3 + 4?", "How many primes are below 20?", "What is the area of a circle of radius 2?", "Find gcd(12, 18).",
]  # fmt: skip


def replies_of(root):
    (stage,) = (root / ".shared").glob("tags-*")
    table = Stage(stage).read_chunks(Replies).sorted()
    return [list(getattr(table, name)) for name in ("id_Q", "points_Q", "reply_Q", "n_asked_Q")]


@pytest.mark.long
@pytest.mark.e2e
def test_a_real_model_tags_on_any_number_of_ranks_and_after_a_kill(tmp_path, tmp_path_factory):
    give_smollm2(tmp_path / "whole", tmp_path_factory)
    give_smollm2(tmp_path / "killed", tmp_path_factory)
    pool = tmp_path / "pool.jsonl"
    pool.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in TEXTS))

    def arguments(root):
        return [
            "policy=smollm2", f"pool.path={pool}", "tags.mode=model", f"tags.model={SMOLLM2}", "clusters.n=2",
            "tags.chunk_questions=1", "tags.max_new_tokens=16", "loop.stop_after=prepare", f"run.root={root}",
            "run.threads=1", "pool.on_bad=skip", "sampler.n_questions=2", "loop.iterations=1",
        ]  # fmt: skip

    whole = start(*arguments(tmp_path / "whole"), ranks=2)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert (
        "questions tagged" in whole.stdout
        and "4 distinct questions, 4 were sent to the tagger for this pool" in whole.stdout
    )
    expected = replies_of(tmp_path / "whole")
    assert any(expected[1]) and all(expected[2])

    root = tmp_path / "killed"
    job = subprocess.Popen(
        command(*arguments(root), ranks=2, is_warm=True),
        env=user_environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (chunks := sorted((root / ".shared").glob(".tags-*.tmp/chunk-*.h5"))):
        assert job.poll() is None
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    resumed = start(*arguments(root))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert int(resumed.stdout.partition("tags: ")[2].split()[0]) <= len(TEXTS) - len(chunks)
    assert replies_of(root) == expected
