"""All runs under one root, and which of them are seeds of one system."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .runs import Run

_SEED = re.compile(r"[-_,.=]*(?:(?:run|clusters|pool)\.)?seed[-_,.=]*\d+")


@dataclass(frozen=True)
class Sweep:
    """The runs and evaluations under a root.

    Attributes:
        evaluations: rows of evaluations.csv.
        keys: the settings in which the runs differ.
        benchmarks: all that some run has scores of.
        by: the settings whose values are compared, if they were chosen.
    """

    root: Path
    runs: list[Run]
    evaluations: list[dict]
    keys: list[str]
    benchmarks: list[str]
    by: tuple[str, ...] = ()

    @property
    def compared(self) -> list[str]:
        """The settings whose values are compared: the chosen ones, or all but seeds in which the runs differ."""
        return list(self.by) or [key for key in self.keys if not _is_seed(key)]

    @property
    def mixed(self) -> list[str]:
        """The settings, but for seeds, in which runs of one group differ."""
        apart = [key for key in self.keys if not _is_seed(key) and key not in self.compared]
        return [key for key in apart if any(len({r.value(key) for r in group.runs}) > 1 for group in self.groups())]

    def groups(self) -> list[Group]:
        """The readable runs by their values of what is compared, numbers ascending, else as they come."""
        found: dict[tuple, list[Run]] = {}
        for run in self.runs:
            if run.settings:
                found.setdefault(tuple(run.value(key) for key in self.compared), []).append(run)
        numeric = [
            all(type(r.settings.get(key)) in (int, float) for r in self.runs if r.settings) for key in self.compared
        ]
        first = list(found)

        def place(values):
            own = found[values][0].settings
            return [own[k] if n else 0 for k, n in zip(self.compared, numeric, strict=True)], first.index(values)

        names = _distinct_names(list(found.values()))
        if self.by or not all(names):
            names = [", ".join(values) or "all runs" for values in found]
        return [Group(values, names[first.index(values)], found[values]) for values in sorted(found, key=place)]


@dataclass(frozen=True)
class Group:
    """Runs of one system, one for each seed.

    Attributes:
        values: of the settings that are compared, as texts.
        label: what its runs' names have in common and other groups' have not; where that is no name, the values.
    """

    values: tuple[str, ...]
    label: str
    runs: list[Run]


def _is_seed(key):
    return key.rpartition(".")[2] == "seed"


def _distinct_names(groups):
    """A name for each group of runs: their common name without its seed, and without what all groups' names hold.

    Empty where runs of a group have several names, or where the name consists of overrides (of a multirun's jobs).
    """
    names = [{_SEED.sub("", run.name) for run in group} for group in groups]
    parts = [next(iter(own)).split(",") if len(own) == 1 else [] for own in names]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    found = [",".join(part for part in own if part not in shared) for own in parts]
    return ["" if "=" in name else name for name in found]
