"""The policy as a Hugging Face folder. A GGUF file is converted once for all runs under one root."""

from __future__ import annotations

import functools
from pathlib import Path

from ..errors import RunError, mark_shared
from ..parallel.world import World
from ..progress import log
from ..store.run import RunDir
from ..store.stage import Stage
from .locate import is_gguf, locate


def require_everywhere(folder: str, world: World) -> None:
    """Make sure that every node sees a policy that root's node sees. Collective.

    Raises:
        RunError: some nodes do not see it; the message names them.
    """
    is_here_W = world.gather((Path(folder) / "config.json").is_file())
    blind = sorted({host for host, is_here in zip(world.hosts, is_here_W, strict=True) if not is_here})
    if is_here_W[0] and blind:
        message = (
            f"policy {folder}: not seen on {', '.join(blind)}, but on {world.hosts[0]}: put it on a file system that "
            "all nodes see, or copy it to the same path on each"
        )
        raise mark_shared(RunError(message), "")


def model_folder(path: str, run: RunDir) -> str:
    """The Hugging Face folder of a model; a GGUF file is converted once. Collective."""
    located = run.world.on_root(lambda: locate(path))
    if not is_gguf(located):
        require_everywhere(located, run.world)
        return located

    def convert(stage: Stage):
        from .gguf import convert_gguf  # imports transformers: a finished stage needs none of it

        size_mb = Path(located).stat().st_size / 1e6
        log.info("converting %s (%.0f MB) into a Hugging Face folder, once for all runs here", located, size_mb)
        run.world.on_root(lambda: stage.write_folder("model", functools.partial(convert_gguf, located)))

    name = f"{Path(located).name} {Path(located).stat().st_size}"
    return run.shared("policy", name, convert, lambda stage: str(stage.path / "model"))
