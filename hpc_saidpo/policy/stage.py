"""The policy as a Hugging Face folder. A GGUF file is converted once for all runs under one root."""

from __future__ import annotations

import functools
from pathlib import Path

from ..store.run import RunDir
from ..store.stage import Stage
from .locate import is_gguf, locate


def model_folder(path: str, run: RunDir) -> str:
    """The Hugging Face folder of a model; a GGUF file is converted once. Collective."""
    located = run.world.on_root(lambda: locate(path))
    if not is_gguf(located):
        return located

    def convert(stage: Stage):
        from .gguf import convert_gguf  # imports transformers: a finished stage needs none of it

        run.world.on_root(lambda: stage.write_folder("model", functools.partial(convert_gguf, located)))

    name = f"{Path(located).name} {Path(located).stat().st_size}"
    return run.shared("policy", name, convert, lambda stage: str(stage.path / "model"))
