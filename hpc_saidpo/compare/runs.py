"""Reading runs: their settings, their figures, what is wrong with them. Nothing is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError

from ..errors import RunError
from ..store import files
from ..store.agreement import MAY_DIFFER, flat
from ..store.layout import iterations_of
from ..store.stage import stages_of
from .rollouts import Drawn, drawn

NOT_A_SETTING = set(MAY_DIFFER) - {"loop.iterations"}  # where a run lies and how it is started, not what it computes


@dataclass(frozen=True)
class Score:
    """Accuracy on a benchmark and its 95 % interval, shares of 1; None when it has no questions."""

    accuracy: float | None
    low95: float | None
    high95: float | None


@dataclass(frozen=True)
class Record:
    """What is read of a line of metrics.jsonl."""

    iteration: int
    explored_questions: int
    pairs: int
    pair_yield: float
    scores: dict[str, Score]
    scores_before: dict[str, Score]
    signatures: list[str]
    entropy_share: float | None = None


NO_SCORE = Score(None, None, None)
_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Run:
    """One run: its flattened settings, its finished iterations, and what is wrong with it, if anything is.

    Attributes:
        drawn: of the rollouts of its finished iterations.
    """

    path: Path
    settings: dict = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    damage: str = ""
    drawn: Drawn = field(default_factory=Drawn)

    @property
    def name(self) -> str:
        return self.path.name

    def value(self, key: str) -> str:
        """A setting's value for reading."""
        return text_of(self.settings.get(key))

    @property
    def asked(self) -> int:
        """Iterations asked for; a run that was prolonged keeps the first loop.iterations in its config.yaml."""
        return max(self.settings.get("loop.iterations", 0), len(self.records))

    @property
    def state(self) -> str:
        if self.damage or not self.records:
            return "damaged" if self.damage else "no iteration yet"
        return "complete" if len(self.records) == self.asked else "unfinished"

    @property
    def complete(self) -> bool:
        return self.state == "complete"

    def before(self, benchmark: str) -> Score:
        """Of the policy before the first iteration that has the benchmark."""
        return next((r.scores_before[benchmark] for r in self.records if benchmark in r.scores_before), NO_SCORE)

    def after(self, benchmark: str) -> Score:
        """Of the policy after the last iteration that has the benchmark."""
        return next((r.scores[benchmark] for r in reversed(self.records) if benchmark in r.scores), NO_SCORE)

    @property
    def pair_yield(self) -> float | None:
        """Mean over the iterations, a share of 1."""
        return float(np.mean([r.pair_yield for r in self.records])) if self.records else None

    @property
    def tokens_per_usable_pair(self) -> float | None:
        """Tokens of all rollouts, the probe's too, for each explored question that could give a pair."""
        usable = sum(r.pair_yield * r.explored_questions for r in self.records)
        return self.drawn.tokens / usable if self.drawn.tokens is not None and usable else None

    def notes(self) -> list[str]:
        """What a reader of its figures has to know: damage, what is not finished, failure signatures."""
        found = [damage for damage in (self.damage, self.drawn.damage) if damage]
        if self.state in ("unfinished", "no iteration yet"):
            done = [str(stage.path.relative_to(self.path)) for stage in stages_of(self.path) if stage.done]
            last = f"last finished stage {done[-1]}" if done else "no stage is finished"
            found.append(f"{self.state}: {len(self.records)} of {self.asked} iterations, {last}")
        return found + [f"iteration {r.iteration}: {text}" for r in self.records for text in r.signatures]


def run_folders(root: Path) -> list[Path]:
    """Those with a config.yaml, but for hidden ones (a preparation); numbers in their names count as numbers."""
    parts = {p.parent: re.split(r"(\d+)", p.parent.name) for p in root.glob("[!.]*/config.yaml")}
    return sorted(parts, key=lambda path: [int(s) if i % 2 else s for i, s in enumerate(parts[path])])


def read(path: Path) -> Run:
    """Read a run's folder; what is wrong with it is told in the run itself."""
    try:
        settings = settings_of(path / "config.yaml")
    except (RunError, OSError) as error:
        return Run(path, damage=str(error))
    try:
        records = files.read_parsed(path / "metrics.jsonl", _records) or []
    except (RunError, OSError) as error:
        return Run(path, settings, damage=str(error))
    finished = sum((folder / "DONE").exists() for _, folder in iterations_of(path))
    lost = (
        f"metrics.jsonl has {len(records)} of {finished} finished iterations: start the run again, it is written anew"
    )
    damage = lost if len(records) < finished else ""
    return Run(path, settings, records, damage, drawn(path, settings, len(records)))


def settings_of(path: Path) -> dict:
    """The flattened configuration of a run.

    Raises:
        RunError: it is no configuration of a run.
    """
    settings = {key: _whole(value) for key, value in flat(files.read_parsed(path, yaml.safe_load)).items()}
    if type(settings.get("loop.iterations")) is not int:
        raise RunError(f"{path} has no loop.iterations, a whole number: put back the configuration of the run")
    return settings


def _whole(value):
    """2.0 is 2: the same setting, written otherwise."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _records(text):
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            records.append(_RECORD.validate_python(json.loads(line)))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"line {number}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return records


def text_of(value) -> str:
    """A setting's value for reading."""
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
