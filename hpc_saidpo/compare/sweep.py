"""All runs under one root, grouped into systems whose runs differ in their seeds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .runs import Run

MAX_KEYS = 2  # systems that differ in more settings are identified by their names
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
        again: name of a run that is not counted -> the run with the same configuration and seed that counts.
    """

    root: Path
    runs: list[Run]
    evaluations: list[dict]
    keys: list[str]
    benchmarks: list[str]
    by: tuple[str, ...] = ()
    software: tuple[str, ...] = ()
    again: dict[str, str] = field(default_factory=dict)

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

        names = [] if self.by else _distinct_names(list(grouped.values()))
        by_keys = _named_by_keys(self.compared, first)
        named = dict(zip(first, zip(names or [""] * len(first), by_keys, strict=True), strict=True))

        def group(values: tuple[str, ...]) -> Group:
            name, keys = named[values]
            return Group(values, name or keys, grouped[values], bool(name))

        return [group(values) for values in sorted(grouped, key=place)]


@dataclass(frozen=True)
class Group:
    """Runs of one system, one for each seed.

    Attributes:
        values: values of the compared settings, as texts.
        label: the part of its runs' names that all of them share and other groups do not have; or else the settings
            that distinguish it, as KEY=VALUE.
        is_name: whether the label is a name.
    """

    values: tuple[str, ...]
    label: str
    runs: list[Run]
    is_name: bool = False


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] == "seed"


def _without_seed(run: Run) -> str:
    """A run's name without its seed: "idpo" of idpo-seed-3, and of idpo-3 where that is the seed."""
    return re.sub(rf"[-_,.]+{re.escape(run.value('run.seed') or '-')}$", "", _SEED.sub("", run.name))


def _distinct_names(groups: list[list[Run]]) -> list[str]:
    """A name for each group of runs: their common name without its seed, and without parts that all groups share.

    "" for a group whose runs have several names, whose name consists of overrides (of a multirun's jobs), or whose name
    is that of another group, too.
    """
    names = [{_without_seed(run) for run in group} for group in groups]
    parts = [next(iter(of_group)).split(",") if len(of_group) == 1 else [] for of_group in names]
    named = [set(of_group) for of_group in parts if of_group]
    shared = set.intersection(*named) if len(named) > 1 else set()
    distinct = [",".join(part for part in of_group if part not in shared) for of_group in parts]
    times = Counter(distinct)
    return ["" if "=" in name or times[name] > 1 else name for name in distinct]


def _named_by_keys(keys: Sequence[str], values: Sequence[tuple[str, ...]]) -> list[str]:
    """Names of groups by their settings, KEY=VALUE: by as few keys as distinguish them all.

    Args:
        keys: the compared settings.
        values: values of these settings of each group.
    """
    chosen: list[int] = []

    def n_distinct(places: Sequence[int]) -> int:
        return len({tuple(row[i] for i in places) for row in values})

    while n_distinct(chosen) < len(values):
        rest = [i for i in range(len(keys)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: n_distinct([*chosen, i])))  # of equal ones the first
    shown = sorted(chosen) if len(keys) > MAX_KEYS else range(len(keys))
    return [", ".join(f"{keys[i]}={row[i] or 'none'}" for i in shown) or "all runs" for row in values]
