"""Sharded tensors: gather them, write them, read them, on any number of ranks."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether each rank holds a shard of the tensor."""
    return isinstance(tensor, DTensor)


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, sharded or not, as one piece on every rank. Collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def barrier() -> None:
    """Wait for every rank of the process group. NCCL ends a rank that waits in one operation for ten minutes."""
    torch.distributed.barrier()


def save(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write named tensors to a folder in safetensors format, each rank its shards. Collective in a process group.

    One rank writes the tensors that are not sharded. Without a process group this rank writes all its tensors. Without
    tensors no file is written.
    """
    with _one_failure():
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        state_dict_saver.save(dict(tensors), storage_writer=writer, no_dist=_has_no_group())


def read_shapes(folder: Path) -> tuple[dict[str, tuple[torch.Size, torch.dtype]], int]:
    """Return shape and data type of the tensors that `save` wrote, by name, and the number of elements in the files."""
    stored = {
        name: entry
        for name, entry in HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    n_elements = sum(math.prod(chunk.sizes) for entry in stored.values() for chunk in entry.chunks)
    return {name: (entry.size, entry.properties.dtype) for name, entry in stored.items()}, n_elements


def load(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill tensors with those that `save` wrote under the same names. Collective in a process group.

    The tensors may be sharded in another way than the written ones.
    """
    with _one_failure():
        reader = HuggingFaceStorageReader(str(folder))
        state_dict_loader.load(dict(tensors), storage_reader=reader, no_dist=_has_no_group())


def _has_no_group() -> bool:
    return not torch.distributed.is_initialized()


@contextlib.contextmanager
def _one_failure() -> Iterator[None]:
    """Raise the failure of the lowest rank. torch raises the failures of all ranks together, not as an Exception."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        raise min(error.failures.items())[1][0] from None
