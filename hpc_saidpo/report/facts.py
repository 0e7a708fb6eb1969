"""The content of a run's report: plain values and tables, gathered by `page`, read by `sections`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..records import Outcome

RUNNING, COMPLETE, PAUSED, ENDED, INTERRUPTED = "running", "complete", "paused", "ended", "interrupted"


@dataclass(frozen=True)
class Answer:
    """A response as the report shows it.

    Attributes:
        kind: right, wrong, cut or ungradable (`answers.kind_of`).
        extracted: the final answer that the grader reads in it; None if it states none, or is graded otherwise.
    """

    kind: str
    text: str
    extracted: str | None


@dataclass(frozen=True)
class Example:
    """A question with a response of the policy before the run, and one of the newest policy; None: there is none."""

    id: str
    question: str
    gold: str
    before: Answer | None
    after: Answer | None


@dataclass(frozen=True)
class Gain:
    """The accuracy on a benchmark before and after the run, by the same questions: shares of 1.

    Attributes:
        change, low95, high95: mean difference over the questions, and its interval.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    change: float
    low95: float
    high95: float


@dataclass(frozen=True)
class Place:
    """The work on one stage: `store.life` has the meaning of the values.

    Attributes:
        seconds: time on the clock.
        tokens: generated (or trained) tokens.
        ranks: busy seconds and tokens of each rank.
    """

    seconds: float
    tokens: float = 0.0
    ranks: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Change:
    """A setting that was changed on the way.

    Attributes:
        since: number of the first iteration with the new value.
    """

    since: int
    key: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Facts:
    """Everything that the page of a run shows.

    Attributes:
        name: of the run.
        state: RUNNING, COMPLETE, PAUSED, ENDED (a failure signature) or INTERRUPTED.
        reason: why it is not complete: the stage that was done last, or the message of its end.
        outcome: its figures so far.
        unfinished: figures of the iteration in progress, by their names in metrics.jsonl; may be incomplete.
        settings: the configuration as plain values.
        configuration: the same as YAML.
        starts: facts of each start (env.json).
        places: the work on each stage, by its folder, in order.
        steps: figures of each optimizer step, by iteration.
        gains: by benchmark.
        examples: responses to show, and their origin in words.
        changes: settings that were changed on the way.
        written: the present time in words.
    """

    name: str
    state: str
    reason: str
    outcome: Outcome
    written: str
    unfinished: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    configuration: str = ""
    starts: Sequence[Mapping[str, Any]] = ()
    places: Mapping[str, Place] = field(default_factory=dict)
    steps: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    gains: Mapping[str, Gain] = field(default_factory=dict)
    examples: tuple[str, Sequence[Example]] = ("", ())
    changes: Sequence[Change] = ()

    def setting(self, key: str, otherwise: Any = None) -> Any:
        """A setting by its dotted key."""
        value: Any = self.settings
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return otherwise
            value = value[part]
        return value

    @property
    def iterations(self) -> list[Mapping[str, Any]]:
        """The figures of every iteration; the last may be incomplete."""
        return [*self.outcome.iterations, *([self.unfinished] if self.unfinished else [])]
