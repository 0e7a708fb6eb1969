"""The layout on disk: round trips, sealing, reading without loading, damage of every kind."""

import copy
import subprocess
import sys

import h5py
import numpy as np
import pytest
from support.make import make_rollouts
from support.program import user_environment

from hpc_saidpo.errors import RunError
from hpc_saidpo.records import CORRECT, WRONG, Draw, Pairs, Rollouts
from hpc_saidpo.store.ragged import BLOCK_BYTES
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.store.stored import StoredRows
from hpc_saidpo.store.tables import Damaged, on_disk_name

TEXTS = ["", "½ × \x00\n", "plain", "\udc80 lone surrogate", "漢字 🙂", "x" * (3 * BLOCK_BYTES)]


def table(questions, k=2, seed=0, long=True) -> Rollouts:
    """Rollouts whose texts differ, with empty ones, long ones and odd characters among them."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in questions:
        for sample in range(k):
            text = TEXTS[rng.integers(len(TEXTS) if long else 5)] + f" {q}/{sample}" * bool(rng.integers(4))
            rows.append((q, sample, int(rng.choice([CORRECT, WRONG])), len(text), 1, True, text))
    return make_rollouts(rows)


def chunked(folder, n_chunks=5, per_chunk=4, shuffled=True) -> tuple[Stage, Rollouts]:
    """A stage of chunks whose questions are scattered, and the same rows sorted."""
    order = np.random.default_rng(1).permutation(n_chunks * per_chunk) if shuffled else np.arange(n_chunks * per_chunk)
    parts = [table(sorted(order[i::n_chunks].tolist()), seed=i) for i in range(n_chunks)]
    stage = Stage(folder)
    stage.prepare()
    for i, part in enumerate(parts):
        stage.write_chunk(i, part)
    return stage, Rollouts.concat(parts).sorted()


def test_any_text_comes_back(folder):
    stage = Stage(folder)
    written = make_rollouts([(q, 0, CORRECT, 1, 1, True, text) for q, text in enumerate(TEXTS)])
    stage.write("t", written)
    assert stage.read("t", Rollouts).text_R == TEXTS
    stage.write_chunk(0, written)
    assert stage.read_chunks(Rollouts).text_R == TEXTS


def test_types_on_disk_are_the_declared_ones(folder):
    stage = Stage(folder)
    stage.write("t", table([1, 2]))
    back = stage.read("t", Rollouts)
    assert (back.question_R.dtype, back.verdict_R.dtype, back.seed_R.dtype) == (np.int64, np.int8, np.uint64)
    stage.write("d", Draw.concat([]))
    assert stage.read("d", Draw).question_Q.dtype == np.int64


def test_chunks_and_shards_look_like_one_array(folder):
    stage, whole = chunked(folder)
    before = stage.read_chunks(Rollouts).sorted()
    assert before.equals(whole)
    for chunks in (range(0, 2), range(2, 4), range(4, 5)):
        stage.seal(chunks, Rollouts)
        assert stage.read_chunks(Rollouts).sorted().equals(whole) and stage.finished_chunks() == set(range(5))
    assert sorted(p.name for p in folder.iterdir()) == [
        "shard-000000-000001.h5", "shard-000002-000003.h5", "shard-000004-000004.h5",
    ]  # fmt: skip


def test_a_shard_hides_the_chunks_that_a_kill_left_beside_it(folder):
    stage, whole = chunked(folder)
    copies = {path: path.read_bytes() for path in folder.glob("chunk-*.h5")}
    stage.seal(range(5), Rollouts)
    for path, content in copies.items():
        path.write_bytes(content)
    assert stage.read_chunks(Rollouts).sorted().equals(whole)
    stage.seal(range(5), Rollouts)  # goes on where it was killed
    assert not list(folder.glob("chunk-*.h5")) and stage.read_chunks(Rollouts).sorted().equals(whole)


def test_shards_do_not_depend_on_who_made_the_chunks():
    stage = Stage("anywhere")
    assert stage.shards([64] * 10) == [range(10)]
    assert [len(s) for s in stage.shards([64] * 1300)] == [512, 512, 276]
    assert stage.shards([32_000, 700, 68, 1, 10]) == [range(3), range(3, 5)]
    assert stage.shards([10**6] * 2) == [range(0, 1), range(1, 2)] and stage.shards([]) == []


def test_texts_stay_on_disk_until_they_are_read(folder):
    stage, whole = chunked(folder)
    listed = stage.read_chunks(Rollouts).sorted()
    assert isinstance(listed.text_R, StoredRows)
    some = listed.take(np.flatnonzero(listed.sample_R == 1)).take(np.arange(0, 20, 3))
    joined = Rollouts.concat([some, listed.take([5, 5, 0])])
    hidden = folder.with_name("hidden")
    folder.rename(hidden)  # nothing of this needs a file
    assert len(joined) == 10 and joined.question_R[-1] == 0 and copy.deepcopy(joined).n_tokens_R[0] >= 0
    hidden.rename(folder)
    rows = [*np.flatnonzero(whole.sample_R == 1)[::3], 5, 5, 0]
    assert joined.text_R == [whole.text_R[r] for r in rows]
    assert copy.deepcopy(joined).text_R == joined.text_R  # each process opens the files itself
    assert joined.text_R[-1] == whole.text_R[0] and joined.text_R[2:4] == list(joined.text_R)[2:4]
    assert joined.text_R.read([]) == [] and whole.take([]).text_R == []


def test_numbers_are_listed_though_the_texts_are_rotten(folder):
    stage, whole = chunked(folder, n_chunks=1)
    path = folder / "chunk-000000.h5"
    with h5py.File(path, "r") as file:
        rotten = file["text/bytes"].id.get_chunk_info(0)
    spoil(path, rotten.byte_offset + rotten.size // 2)
    listed = stage.read_chunks(Rollouts).sorted()
    assert np.array_equal(listed.n_tokens_R, whole.n_tokens_R) and listed.id_R == whole.id_R
    with pytest.raises(Damaged, match=r"chunk-000000\.h5: is damaged"):
        listed.text_R.read(np.arange(len(listed)))


def test_more_files_than_are_kept_open(folder, monkeypatch):
    monkeypatch.setattr("hpc_saidpo.store.stored.OPEN_FILES", 3)
    stage, whole = chunked(folder, n_chunks=9)
    listed = stage.read_chunks(Rollouts).sorted()
    for row in np.random.default_rng(0).permutation(len(whole)):
        assert listed.text_R[int(row)] == whole.text_R[row]


def spoil(path, at, flip=0xFF):
    content = bytearray(path.read_bytes())
    content[at] ^= flip
    path.write_bytes(bytes(content))


def test_no_flipped_byte_goes_unseen(folder):
    """A byte of the file flips, at many places: the table is either named as damaged, or not changed by it."""
    stage = Stage(folder)
    written = table(range(40), long=False)
    stage.write("t", written)
    path = folder / "t.h5"
    sound = path.read_bytes()
    seen = 0
    for at in np.random.default_rng(0).permutation(len(sound))[:400]:
        spoil(path, int(at))
        try:
            assert stage.read("t", Rollouts).equals(written), f"byte {at}"
        except RunError as error:
            assert "t.h5" in str(error)
            seen += 1
        path.write_bytes(sound)
    assert seen > 100


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda content: content[: len(content) // 2], "is truncated"),
        (lambda content: b"", "is empty"),
        (lambda content: b"something else entirely", "is not an HDF5 file"),
        (lambda content: bytes(len(content)), "holds zeros"),
        (None, "is missing"),
    ],
)
def test_a_damaged_file_is_named_with_what_happened_and_what_to_do(folder, damage, says):
    stage = Stage(folder)
    stage.write("draw", Draw(np.arange(3), np.ones(3), np.zeros(3, dtype=int)))
    path = folder / "draw.h5"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Damaged, match=rf"draw\.h5: {says}.*hpc-saidpo verify RUN --repair"):
        stage.read("draw", Draw)


def test_foreign_tables_are_named(folder):
    stage = Stage(folder)
    with h5py.File(folder / "x.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(Damaged, match="HDF5 file of another program"):
        stage.read("x", Draw)
    stage.write("d", Draw.concat([]))
    with pytest.raises(Damaged, match="holds Draw, not Pairs"):
        stage.read("d", Pairs)
    with h5py.File(folder / "d.h5", "a") as file:
        file.attrs["schema_version"] = 4
    with pytest.raises(RunError, match="has layout 4, this version reads 2 and 3"):
        stage.read("d", Draw)


LOCKED = """
import fcntl, sys
from pathlib import Path
import h5py
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import Draw
from hpc_saidpo.store.stage import Stage
path = Path(sys.argv[1]) / "d.h5"
other = open(path, "rb+")
fcntl.flock(other, fcntl.LOCK_EX)
try:
    h5py.File(path, "r", locking=True)
except OSError as error:
    print("plain reader:", error)
try:
    print("rows:", len(Stage(path.parent).read("d", Draw)))
except RunError as error:
    print(type(error).__name__, error)
"""


def read_a_locked_file(folder, **variables):
    """Output of a process that reads a table which another reader has locked. HDF5 reads the variable once."""
    Stage(folder).write("d", Draw.concat([]))
    environment = {k: v for k, v in user_environment(**variables).items() if k != "HDF5_USE_FILE_LOCKING" or variables}
    done = subprocess.run(
        [sys.executable, "-c", LOCKED, str(folder)], capture_output=True, text=True, env=environment
    )  # fmt: skip
    assert done.returncode == 0 and "plain reader: " in done.stdout, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def test_a_file_system_without_locks_is_read_all_the_same(folder):
    assert read_a_locked_file(folder) == "rows: 0"


def test_locks_that_a_site_requires_and_cannot_grant_are_named(folder):
    """They are no damage: nothing must be set aside for them."""
    last_line = read_a_locked_file(folder, HDF5_USE_FILE_LOCKING="TRUE")
    assert last_line.startswith("RunError ") and "set it to FALSE" in last_line


def test_names_on_disk_carry_no_shape_letters():
    assert on_disk_name("n_tokens_R") == "n_tokens" and on_disk_name("vector_UD") == "vector"
