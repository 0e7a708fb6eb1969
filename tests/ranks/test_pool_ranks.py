"""A pool's files read by all ranks in pieces: the same pool, to the byte, as when one rank reads them whole."""

import gzip
import random

import pytest
from support.pools import (
    contents,
    load,
    load_whole,
    numbered,
    use_small_pieces,
    write_jsonl,
    write_mixed_files,
    write_rough_lines,
)

from hpc_saidpo.errors import RunError
from hpc_saidpo.pool import clean
from hpc_saidpo.records import Questions, pick
from hpc_saidpo.store.stored import StoredRows
from hpc_saidpo.tags.column import read_points


@pytest.mark.mpi
@pytest.mark.several
@pytest.mark.parametrize("seed, n_bytes, n_rows", [(0, 900, 4), (1, 600, 1000)])
def test_the_same_files_on_any_number_of_ranks(folder, world, monkeypatch, seed, n_bytes, n_rows):
    use_small_pieces(monkeypatch, n_bytes, n_rows)
    paths = world.on_root(lambda: write_mixed_files(folder, seed))
    loaded, lines, manifest = load_whole(folder, paths, world, held_out=9)
    alone, *own = load_whole(folder / f"alone-{world.rank}", paths, held_out=9)
    assert [lines, manifest] == own and contents(loaded) == contents(alone)
    assert len([name for name in manifest if name.startswith("chunk")]) > 1
    assert not any(name.startswith(("marks", "bad")) for name in manifest)


@pytest.mark.mpi
def test_a_damaged_file_ends_all_ranks_with_its_name(folder, world, monkeypatch):
    use_small_pieces(monkeypatch, 1, 4)
    damaged = [folder / f"{i}.jsonl.gz" for i in range(2, 6)]

    def write():
        paths = [folder / f"{i}.jsonl" for i in range(2)]
        for path in paths:
            write_rough_lines(path, random.Random(0), [{"question": f"{path} {i}?", "answer": i} for i in range(8)])
        for path in damaged:
            path.write_bytes(gzip.compress(b'{"question": "q", "answer": 1}\n' * 99)[:-9])
        return [*paths, *damaged]

    paths = world.on_root(write)
    with pytest.raises(RunError, match=rf"{damaged[0]}: its compressed content is damaged or cut off"):
        load_whole(folder, paths, world)
    assert not [path for path in (folder / "runs/.shared").iterdir() if path.is_dir()]  # root releases its lock last
    assert world.gather(world.rank) == list(range(world.size))


@pytest.mark.mpi
def test_a_rank_that_cannot_read_ends_all(folder, world, monkeypatch):
    use_small_pieces(monkeypatch, 1, 4)
    path = folder / "p.jsonl"
    world.on_root(lambda: path.write_text("".join(f'{{"question": "{i}?", "answer": 1}}\n' for i in range(30))))
    rows_of = clean.rows

    def torn(path, label, config, span, verifier, limits):
        if world.rank == world.size - 1 and span.first >= 20:
            raise RunError(f"{path}:{span.first}: cannot be read")
        return rows_of(path, label, config, span, verifier, limits)

    monkeypatch.setattr(clean, "rows", torn)
    with pytest.raises(RunError, match=rf"{path}:[23]\d: cannot be read"):
        load_whole(folder, path, world)
    assert not [path for path in (folder / "runs/.shared").iterdir() if path.is_dir()]  # root releases its lock last


@pytest.mark.mpi
def test_the_same_pool_on_every_rank_with_its_texts_on_disk(folder, world):
    path = world.on_root(lambda: write_jsonl(folder / "p.jsonl", *numbered(500), *numbered(5), "bad"))
    pool = load(folder, path, on_bad="skip", held_out=50, world=world)
    assert isinstance(pool.questions, Questions) and isinstance(pool.questions.text_N, StoredRows)
    here = [(q.id, q.text, q.answer, q.tags) for q in pool.questions]
    alone = load(folder / f"alone-{world.rank}", path, on_bad="skip", held_out=50)
    assert here == [(q.id, q.text, q.answer, q.tags) for q in alone.questions] and len(here) == 450
    assert world.gather(here) == [here] * world.size or not world.is_root
    assert pick(pool.questions, [7, 3]) == {7: alone.questions[7], 3: alone.questions[3]}
    assert read_points(pool.questions) == [("sums",)] * 450
