"""What a run folder holds that it should not, or lacks: files of killed processes, token ids."""

from __future__ import annotations

from pathlib import Path

from . import temporaries
from .layout import iterations_of
from .ragged import WITH_TOKENS
from .stage import Stage, stages_of
from .tables import Damaged


def unfinished(run: Path) -> list[Path]:
    """Return the temporary files and folders of killed processes in a run folder: only in the folders of its layout."""
    places = [run, *(folder for _, folder in iterations_of(run)), *(stage.path for stage in stages_of(run))]
    return temporaries.in_folders(places)


def lacking(run: Path) -> str:
    """A message about what a run lacks because an earlier version made it; "" if it lacks nothing."""

    def layout(stage: Stage) -> int:
        try:
            return stage.layout
        except Damaged:  # reported by whoever reads the stage
            return WITH_TOKENS

    if all(layout(stage) >= WITH_TOKENS for stage in stages_of(run) if stage.done):
        return ""
    return f"{run} was made by an earlier version: it has the texts of prompts and responses, but not their token ids"
