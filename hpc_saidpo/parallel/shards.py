"""Tensors that are cut into shards: made whole, written and read by any number of ranks."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor


def is_spread(tensor: torch.Tensor) -> bool:
    """Whether each rank holds a shard of it."""
    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be spread over the ranks, in one piece, on every rank. Collective."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def save(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors to a folder: each rank the shards that it has, in safetensors. Collective in a process group.

    What every rank has is written by one. Without a process group this rank writes what it has; with none, no file.
    """
    with _one_failure():
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        checkpoint.save(dict(tensors), storage_writer=writer, no_dist=_no_group())


def saved(folder: Path) -> tuple[dict[str, tuple[torch.Size, torch.dtype]], int]:
    """Shape and data type of what `save` wrote, by name; and how many numbers are there, of all tensors together."""
    known = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    n_numbers = sum(math.prod(chunk.sizes) for entry in known.values() for chunk in entry.chunks)
    return {name: (entry.size, entry.properties.dtype) for name, entry in known.items()}, n_numbers


def load(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill tensors with what `save` wrote under their names, however it and they are cut. Collective in a group."""
    with _one_failure():
        reader = HuggingFaceStorageReader(str(folder))
        checkpoint.load(dict(tensors), storage_reader=reader, no_dist=_no_group())


def _no_group() -> bool:
    return not torch.distributed.is_initialized()


@contextlib.contextmanager
def _one_failure() -> Iterator[None]:
    """torch tells every rank's failure at once, as no Exception; raised here is that of the lowest rank."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except checkpoint.CheckpointException as error:
        raise min(error.failures.items())[1][0] from None
