"""Read runs: their settings, their figures, their damage. Nothing is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import FiniteFloat, TypeAdapter, ValidationError

from ..errors import RunError, shown, visible, words_of
from ..reading import parse_json, parse_yaml
from ..store import files, life
from ..store.agreement import MAY_DIFFER, flat
from ..store.layout import PREPARATION, iterations_of
from ..store.stage import stages_of
from .rollouts import Drawn, drawn

SHOWN_CHARACTERS = 30  # of a text that stands in a narrow place
NOT_A_SETTING = set(MAY_DIFFER) - {"loop.iterations"}  # keys that do not change the results of a run


@dataclass(frozen=True)
class Score:
    """Accuracy on a benchmark and its 95 % interval, shares of 1; None when it has no questions."""

    accuracy: FiniteFloat | None
    low95: FiniteFloat | None
    high95: FiniteFloat | None


@dataclass(frozen=True)
class Record:
    """The fields of a line of metrics.jsonl that a comparison uses."""

    iteration: int
    explored_questions: int
    pairs: int
    pair_yield: FiniteFloat
    scores: dict[str, Score]
    scores_before: dict[str, Score]
    signatures: list[str]
    entropy_share: FiniteFloat | None = None


NO_SCORE = Score(None, None, None)
_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        settings: key -> value, as in run.seed -> 0; empty when the configuration is damaged.
        records: figures of the finished iterations.
        damage: description of its damage; "" without damage.
        drawn: figures of the rollouts of its finished iterations.
        hours: time that its stages took, over all starts; None if it is not known.
    """

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    damage: str = ""
    drawn: Drawn = field(default_factory=Drawn)
    hours: float | None = None

    @property
    def name(self) -> str:
        return self.path.name

    def value(self, key: str) -> str:
        """A setting's value for reading."""
        return text_of(self.settings.get(key))

    @property
    def requested(self) -> int:
        """Requested iterations. A run that was extended still has its first loop.iterations in config.yaml."""
        return max(self.settings.get("loop.iterations", 0), len(self.records))

    @property
    def state(self) -> str:
        """One of damaged, no iteration yet, unfinished, complete."""
        if self.damage or not self.records:
            return "damaged" if self.damage else "no iteration yet"
        return "complete" if len(self.records) == self.requested else "unfinished"

    @property
    def is_preparation(self) -> bool:
        """Whether tools/submit.py made it for what the runs of a sweep share: it has no results of its own."""
        return self.name.startswith(PREPARATION) and self.settings.get("loop.stop_after") == "prepare"

    @property
    def is_evaluation(self) -> bool:
        """Whether it is a stand-alone evaluation, whose configuration has no sampler and no training."""
        return bool(self.settings) and not any(key.startswith(("sampler.", "dpo.")) for key in self.settings)

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    def before(self, benchmark: str) -> Score:
        """Return the score of the policy before the first iteration that has the benchmark."""
        return next((r.scores_before[benchmark] for r in self.records if benchmark in r.scores_before), NO_SCORE)

    def after(self, benchmark: str) -> Score:
        """Return the score of the policy after the last iteration that has the benchmark."""
        return next((r.scores[benchmark] for r in reversed(self.records) if benchmark in r.scores), NO_SCORE)

    @property
    def pair_yield(self) -> float | None:
        """Mean pair yield over the iterations, a share of 1."""
        return float(np.mean([r.pair_yield for r in self.records])) if self.records else None

    @property
    def tokens_per_usable_pair(self) -> float | None:
        """Tokens of all rollouts, with those of the probes, per explored question that could become a pair."""
        usable = sum(r.pair_yield * r.explored_questions for r in self.records)
        return self.drawn.tokens / usable if self.drawn.tokens is not None and usable else None

    def notes(self) -> list[str]:
        """Return warnings about its figures: damage, unfinished work, failure signatures."""
        lines = [damage for damage in (self.damage, self.drawn.damage) if damage]
        if self.state in ("unfinished", "no iteration yet"):
            done = [str(stage.path.relative_to(self.path)) for stage in stages_of(self.path) if stage.done]
            last = f"last finished stage {done[-1]}" if done else "no stage is finished"
            lines.append(f"{self.state}: {len(self.records)} of {self.requested} iterations, {last}")
        return lines + [f"iteration {r.iteration}: {text}" for r in self.records for text in r.signatures]


def run_folders(root: Path) -> list[Path]:
    """Return the folders with a config.yaml, sorted by name with numbers as numbers. Hidden folders are left out."""
    parts = {p.parent: re.split(r"(\d+)", p.parent.name) for p in root.glob("[!.]*/config.yaml")}
    return sorted(parts, key=lambda path: [int(s) if i % 2 else s for i, s in enumerate(parts[path])])


def read(path: Path) -> Run:
    """Read a run's folder. Damage is no error here, but part of the result."""
    try:
        settings = settings_of(path / "config.yaml")
    except (RunError, OSError) as error:
        return Run(path, damage=str(error))
    try:
        records = files.read_parsed(path / "metrics.jsonl", _records, list) or []
    except (RunError, OSError) as error:
        return Run(path, settings, damage=str(error))
    finished = sum((folder / "DONE").exists() for _, folder in iterations_of(path))
    lost = f"metrics.jsonl has {len(records)} of {finished} finished iterations: start the run again, which rewrites it"
    damage = lost if len(records) < finished else ""
    spent_s = life.read_progress(path).get("spent_s")
    hours = sum(spent_s.values()) / 3600 if spent_s else None
    return Run(path, settings, records, damage, drawn(path, settings, len(records)), hours)


def settings_of(path: Path) -> dict[str, Any]:
    """Read the flattened configuration of a run.

    Raises:
        RunError: the file is damaged, or no configuration of a run.
    """
    settings = {key: _whole(value) for key, value in flat(files.read_parsed(path, parse_yaml, object)).items()}
    if type(settings.get("loop.iterations")) is not int:
        raise RunError(f"{shown(path)} has no loop.iterations, a whole number: restore the configuration of the run")
    return settings


def _whole(value: Any) -> Any:
    """Turn 2.0 into 2: both are the same value of a setting."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _records(text: str) -> list[Record]:
    """Parse metrics.jsonl.

    Raises:
        ValueError: a line is damaged; names it.
    """
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            records.append(_RECORD.validate_python(parse_json(line)))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except ValueError as error:
            raise ValueError(f"line {number}: {words_of(error)}") from error
    return records


def text_of(value: Any) -> str:
    """Format a setting's value for reading."""
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def short(text: str) -> str:
    """Shorten a text to one line of at most SHOWN_CHARACTERS; its end is kept, because names differ there."""
    text = visible(" ".join(text[: 10 * SHOWN_CHARACTERS].split()) + text[10 * SHOWN_CHARACTERS :], kept="") or "-"
    return text if len(text) <= SHOWN_CHARACTERS else "…" + text[1 - SHOWN_CHARACTERS :]
