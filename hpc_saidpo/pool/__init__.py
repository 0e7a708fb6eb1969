"""Question pools and benchmarks: from files of many formats, or made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from ..records import Question
from ..store import RunDir
from . import columns, files, made, sources
from .files import read_questions
from .made import Arithmetic, ReasoningGym, Setting
from .pools import Pool, by_subject
from .settings import Config as Files

__all__ = [
    "Arithmetic", "Config", "Files", "Pool", "ReasoningGym", "Setting", "by_subject", "columns", "load",
    "read_questions", "sources",
]  # fmt: skip
Config = Annotated[Files | Arithmetic | ReasoningGym, Field(discriminator="kind")]


def load(
    config: Files | Arithmetic | ReasoningGym, store: RunDir, benchmarks: Mapping[str, Sequence[Question]] | None = None
) -> Pool:
    """Load or make the pool. Collective; it comes from the disk, or is made by root, and is the same on every rank.

    Args:
        benchmarks: what is evaluated, by name: its questions leave a pool of files.

    Raises:
        RunError: names the file and line, or the setting, that is wrong.
    """
    if isinstance(config, Files):
        return files.load(config, store, benchmarks or {})
    return store.world.on_root(lambda: made.make(config))
