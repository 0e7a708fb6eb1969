"""All runs under one root, grouped into systems whose runs differ in their seeds."""

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
        benchmarks: the benchmarks that some run has scores of.
        by: the settings to compare, from --by; empty: not chosen.
        software: lines about software that differs between runs (`store.software.differences`).
    """

    root: Path
    runs: list[Run]
    evaluations: list[dict]
    keys: list[str]
    benchmarks: list[str]
    by: tuple[str, ...] = ()
    software: tuple[str, ...] = ()

    @property
    def compared(self) -> list[str]:
        """The compared settings: the chosen ones, or all in which the runs differ, but seeds."""
        return list(self.by) or [key for key in self.keys if not _is_seed(key)]

    @property
    def mixed(self) -> list[str]:
        """The settings in which runs of one group differ, but seeds."""
        apart = [key for key in self.keys if not _is_seed(key) and key not in self.compared]
        return [key for key in apart if any(len({r.value(key) for r in group.runs}) > 1 for group in self.groups())]

    def groups(self) -> list[Group]:
        """Group the readable runs by their values of the compared settings; sorted where all values are numbers."""
        grouped: dict[tuple[str, ...], list[Run]] = {}
        for run in self.runs:
            if run.settings:
                grouped.setdefault(tuple(run.value(key) for key in self.compared), []).append(run)
        numeric = [
            all(type(r.settings.get(key)) in (int, float) for r in self.runs if r.settings) for key in self.compared
        ]
        first = list(grouped)

        def place(values: tuple[str, ...]) -> tuple[list, int]:
            settings = grouped[values][0].settings
            return [settings[k] if n else 0 for k, n in zip(self.compared, numeric, strict=True)], first.index(values)

        names = _distinct_names(list(grouped.values()))
        if self.by or not all(names):
            names = [", ".join(values) or "all runs" for values in grouped]
        return [Group(values, names[first.index(values)], grouped[values]) for values in sorted(grouped, key=place)]


@dataclass(frozen=True)
class Group:
    """Runs of one system, one for each seed.

    Attributes:
        values: values of the compared settings, as texts.
        label: the part of its runs' names that all of them share and other groups do not have; or the values.
    """

    values: tuple[str, ...]
    label: str
    runs: list[Run]


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _distinct_names(groups: list[list[Run]]) -> list[str]:
    """A name for each group of runs: their common name without its seed, and without parts that all groups share.

    "" for a group whose runs have several names, or whose name consists of overrides (of a multirun's jobs).
    """
    names = [{_SEED.sub("", run.name) for run in group} for group in groups]
    parts = [next(iter(of_group)).split(",") if len(of_group) == 1 else [] for of_group in names]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    distinct = [",".join(part for part in of_group if part not in shared) for of_group in parts]
    return ["" if "=" in name else name for name in distinct]
