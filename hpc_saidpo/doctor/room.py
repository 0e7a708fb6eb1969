"""Estimate what runs write to disk, in bytes and in files. Imports no heavy library: tools/submit.py asks it, too."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import RunError
from ..policy.locate import is_gguf, locate
from ..rollouts.chunks import count
from ..settings.whole import Settings

GIB = 2**30
FILE_BYTES = 5_000_000_000  # of weights, in one file
STAGES_FILES = 30  # files of an iteration besides weights and chunks; `tools/bench/bench_scale.py` counts them
RUN_FILES = 25  # of a run besides its iterations, for each start
_PACKED = {"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2}  # weights in an integer: one for each byte
CHECKPOINT_BYTES = 12  # of each parameter during a DPO round: weights and two moments in float32


@dataclass(frozen=True)
class Room:
    """What runs write: bytes, files and folders."""

    n_bytes: float
    n_files: int

    def __str__(self) -> str:
        exponent = 2 if self.n_bytes < GIB else 3 if self.n_bytes < 1024 * GIB else 4
        return f"about {self.n_bytes / 1024**exponent:,.1f} {' KMGT'[exponent]}iB in {self.n_files:,} files"


@dataclass(frozen=True)
class Weights:
    """The weights of a policy: their number, and the precision of most of them, as safetensors calls it."""

    n: int
    precision: str


def weights_of(path: str) -> Weights | None:
    """Read the headers of a policy's safetensors files; None for other files, and where there is no such policy."""
    located = locate(path)
    files = [] if is_gguf(located) else sorted(p for p in Path(located).glob("*.safetensors") if p.is_file())
    numbers: dict[str, int] = {}
    for file in files:
        with safe_open(file, framework="numpy") as stored:
            for part in map(stored.get_slice, stored.keys()):
                precision = str(part.get_dtype())
                numbers[precision] = numbers.get(precision, 0) + math.prod(part.get_shape()) * _PACKED.get(precision, 1)
    return Weights(sum(numbers.values()), max(numbers, key=lambda name: numbers[name])) if numbers else None


def needed(configs: Sequence[Settings], known: Weights | None = None) -> Room | None:
    """Estimate what some runs write together; None if the weights of a policy cannot be counted.

    Every run keeps the policies that loop.keep says, at most one more while it is written, and a checkpoint during a
    round. Rollouts are small beside them.

    Args:
        known: the weights of a policy whose files have no headers that tell.
    """
    n_bytes, n_files = 0.0, 0
    for config in configs:
        try:
            weights = weights_of(config.policy.path) or known
        except (RunError, OSError, SafetensorError):
            return None
        if weights is None:
            return None
        saved = {"float32": 4, "bfloat16": 2, "auto": 2 if weights.precision == "BF16" else 4}
        each = saved[config.policy.save_precision]
        most = {"all": config.loop.iterations, "last": 2, "best": 3}[config.loop.keep]
        n_policies = min(most, config.loop.iterations)
        n_bytes += weights.n * (each * n_policies + CHECKPOINT_BYTES)
        of_weights = 8 + round(weights.n * each / FILE_BYTES)
        chunks = count(config.sampler.n_questions, *config.rollouts.chunk_bounds("explore"))  # until they are merged
        n_files += RUN_FILES + chunks + config.loop.iterations * STAGES_FILES + n_policies * of_weights
    return Room(n_bytes, n_files)


def compare(root: Path, wanted: Room | None, n_runs: int) -> tuple[str, str]:
    """Compare the room that runs need with the free room of a file system.

    Args:
        root: a folder, which need not exist yet.
        wanted: what all runs together will write; None: unknown.

    Returns:
        Both in words, and the problem with its remedy ("" if there is none).
    """
    while not root.exists():
        root = root.parent
    system = os.statvfs(root)
    free = Room(system.f_bavail * system.f_frsize, system.f_favail)
    # A file system without a fixed number of inodes reports 0.
    text = f"{free.n_bytes / GIB:,.0f} GiB{f' and {free.n_files:,} files' if free.n_files else ''} free"
    if wanted is None:
        return text, ""
    text += f"; {f'{n_runs} runs write' if n_runs > 1 else 'the run writes'} {wanted}"
    is_short = free.n_bytes < wanted.n_bytes or 0 < free.n_files < wanted.n_files
    remedy = "too little: free space, choose another run.root, or loop.keep=last, which removes old policies"
    return text, remedy * is_short
