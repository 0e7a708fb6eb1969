"""Figures of the token ids that a run keeps: their cost on disk, and whether they are what DPO trains.

`bytes_per_row` writes a run's rollouts as layout 2 did, which stored texts alone, and compares the size of the files.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from hpc_saidpo.dpo.examples import examples_of, tokenise
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import Pairs, Prompts, Rollouts
from hpc_saidpo.store.ragged import attributes
from hpc_saidpo.store.stage import Stage

BLOCK_BYTES, BLOCK_ROWS = 32 * 1024, 8192  # of layout 2
NEW = ("tokens_R",)
WIDER = {"seconds_R": np.float64}  # columns that layout 2 stored in a wider type


def bytes_per_row(stage: Stage) -> dict[str, float]:
    """Size of a finished stage of rollouts per row, with its prompts, now and in layout 2, and their ratio."""
    now = sum(path.stat().st_size for path in stage.path.glob("*.h5"))
    tables = {path: stage.read(path.stem, Rollouts) for path in sorted(stage.path.glob("shard-*.h5"))}
    before, n = sum(map(layout_2, tables, tables.values())), sum(map(len, tables.values()))
    return {"bytes_per_row_before": before / n, "bytes_per_row": now / n, "bytes_per_row_ratio": now / before}


def layout_2(path: Path, table: Rollouts) -> int:
    """Bytes of these rollouts as a file of layout 2, with the attributes of the file at `path`."""
    image = h5py.File("image", "w", driver="core", backing_store=False, libver="v110")
    with h5py.File(path, "r") as present, image as file:
        file.attrs.update(attributes(present))
        for f in fields(table):
            name, column, dtype = f.name.removesuffix("_R"), getattr(table, f.name), f.metadata["dtype"]
            if f.name in NEW:
                continue
            if dtype is str:
                place = file.create_group(name)
                texts = [text.encode("utf-8", "surrogatepass") for text in column]
                _put(place, "bytes", np.frombuffer(b"".join(texts), dtype=np.uint8), BLOCK_BYTES)
                _put(place, "offsets", np.concatenate([[0], np.cumsum(list(map(len, texts)))]), BLOCK_ROWS)
            else:
                place = _put(file, name, np.asarray(column, WIDER.get(f.name, dtype)), BLOCK_ROWS)
            place.attrs.update({key: f.metadata[key] for key in ("meaning", "unit")})
        file.flush()
        return len(file.id.get_file_image())


def _put(group: h5py.Group, name: str, data: np.ndarray, block: int) -> h5py.Dataset:
    if data.size == 0:
        return group.create_dataset(name, data=data)
    return group.create_dataset(
        name, data=data, chunks=(min(block, len(data)),), shuffle=data.itemsize > 1, fletcher32=True,
        **hdf5plugin.Zstd(clevel=1),
    )  # fmt: skip


def trained_as_drawn(stage: Stage, policy: Policy, chat: bool, stop: tuple[str, ...]) -> dict[str, float]:
    """Share of a stage's responses that DPO would train with the drawn tokens, from a pair and from its texts alone."""
    rollouts, prompts = stage.read_chunks(Rollouts).sorted(), stage.read("prompts", Prompts)
    row_of = {q: row for row, q in enumerate(prompts.question_Q.tolist())}
    prompt = prompts.take([row_of[q] for q in rollouts.question_R.tolist()])
    n, texts, ids = len(rollouts), list(rollouts.text_R), list(rollouts.tokens_R)
    zeros = np.zeros(n)
    pairs = Pairs(
        rollouts.question_R, zeros, rollouts.sample_R, rollouts.sample_R, rollouts.finished_R, rollouts.finished_R,
        zeros, zeros, zeros, zeros, list(rollouts.id_R), list(prompt.text_Q), texts, texts,
        list(prompt.tokens_Q), ids, ids,
    )  # fmt: skip
    drawn = [row.tolist() for row in ids]

    def share(trained: list[list[int]]) -> float:
        return float(np.mean([a == b for a, b in zip(trained, drawn, strict=True)]))

    return {
        "tokens_trained_as_drawn": share(examples_of(pairs, policy, chat, stop).chosen),
        "tokens_of_texts_as_drawn": share(tokenise(pairs, policy, chat, stop).chosen),
    }
