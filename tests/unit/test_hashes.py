"""Files whose hash is known are not read again, and others are."""

import hashlib
import json
import os
import time

import pytest

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.locate import fingerprint
from hpc_saidpo.pool.stage import load_pool
from hpc_saidpo.store import files, hashes
from hpc_saidpo.store.hashes import Hashes
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage


@pytest.fixture
def read(monkeypatch):
    """The files whose content was read to hash it."""
    paths, compute = [], files.sha256

    def sha256(path):
        paths.append(path.name)
        return compute(path)

    monkeypatch.setattr(files, "sha256", sha256)
    return paths


def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_by_all_starts(folder, read):
    one, other = folder / "one", folder / "other"
    one.write_bytes(b"1"), other.write_bytes(b"2")
    for _ in range(3):
        assert Hashes(folder / "hashes.json").of([one, other, one]) == [digest(b"1"), digest(b"2"), digest(b"1")]
    assert sorted(set(read)) == ["one", "other"] and len(read) <= 3


@pytest.mark.parametrize("is_touched_back", [False, True])
def test_a_changed_file_is_read_again(folder, read, is_touched_back):
    """Also one of the same size whose time of change was set back."""
    path = folder / "file"
    path.write_bytes(b"1")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    known = Hashes(folder / "hashes.json")
    assert known.of([path]) == [digest(b"1")]
    time.sleep(0.02)
    path.write_bytes(b"2")
    if is_touched_back:
        os.utime(path, ns=times)
    assert known.of([path]) == [digest(b"2")]
    assert read == ["file", "file"]


def test_what_a_manifest_lists_is_not_read(folder, read):
    stage = Stage(folder / "iter-000" / "policy")
    stage.write_folder("model", lambda inside: (inside / "w").write_bytes(b"1"))
    stage.mark_done()
    read.clear()
    weights = stage.path / "model" / "w"
    os.utime(weights, (1, 1))
    assert Hashes(folder / "hashes.json").of([weights]) == [digest(b"1")]
    assert not read and not (folder / "hashes.json").exists()
    weights.write_bytes(b"12")  # its size shows that it was changed
    assert Hashes(folder / "hashes.json").of([weights]) == [digest(b"12")]


def test_a_damaged_list_of_hashes_is_made_again(folder, read):
    path = folder / "file"
    path.write_bytes(b"1")
    for content in ("", "{", "[1]", json.dumps({str(path): 3}), json.dumps({str(path): [[1], "x", 2]})):
        (folder / "hashes.json").write_text(content)
        assert Hashes(folder / "hashes.json").of([path]) == [digest(b"1")]
    assert len(read) == 5
    assert json.loads((folder / "hashes.json").read_text())[str(path)][1] == digest(b"1")


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(folder, monkeypatch):
    path = folder / "file"
    path.write_bytes(b"1")
    states = [[1], [2]]
    monkeypatch.setattr(hashes, "_state", lambda path: states.pop())
    Hashes(folder / "hashes.json").of([path])
    assert not (folder / "hashes.json").exists()


def test_a_finished_stage_asks_for_no_hash_of_its_policy(folder, read):
    with RunDir.open(settings.Run(root=str(folder)), {}, {}, World()) as run:
        calls = []

        def policy_hash():
            calls.append(1)
            return "a"

        for _ in range(2):
            stage = run.stage(0, "draw", lambda s: s.write_json("x", 1), lambda s: s, policy_hash=policy_hash)
    assert len(calls) == 1 and stage.done
    assert fingerprint(str(folder), run.sha256s) == fingerprint(str(folder))


def test_a_touched_or_moved_pool_is_not_read_again(folder, monkeypatch):
    """Sites purge files by their times, so people touch them."""
    place = folder / "questions"
    place.mkdir()
    file = place / "pool.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i} + 1?", "answer": f"{i + 1}"}) + "\n" for i in range(5)))
    run = RunDir(folder / "run", World(), {}, print)
    first = load_pool(settings.Files(path=str(file)), run)
    monkeypatch.setattr("hpc_saidpo.pool.writer.write_pool", lambda *_: pytest.fail("it is read again"))
    os.utime(file, (1, 1))
    again = load_pool(settings.Files(path=str(file)), run)
    place.rename(folder / "moved")
    moved = load_pool(settings.Files(path=str(folder / "moved" / "pool.jsonl")), run)
    assert first.fingerprint == again.fingerprint == moved.fingerprint
    assert [q.text for q in moved.questions] == [q.text for q in first.questions]
    monkeypatch.undo()
    (folder / "moved" / "pool.jsonl").write_text(json.dumps({"question": "2 + 2?", "answer": "4"}) + "\n")
    changed = load_pool(settings.Files(path=str(folder / "moved" / "pool.jsonl")), run)
    assert [q.text for q in changed.questions] == ["2 + 2?"]
