"""Write a run's report.html: after every stage, and at every end. For root alone, and not collective."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .. import difficulty
from ..errors import Ended, words_of
from ..evaluate.benchmarks import Benchmark
from ..evaluate.intervals import difference
from ..parallel.task import ALL_RANKS
from ..pool.pool import Pool
from ..progress import log
from ..reading import read_text
from ..records import Outcome, Question, Rollouts
from ..store import agreement
from ..store.life import Work
from ..store.run import RunDir
from ..store.software import read_starts
from ..store.stage import Stage
from ..store.tables import Damaged
from . import answers
from .facts import ENDED, RUNNING, Change, Example, Facts, Gain, Place
from .page import page


@dataclass(frozen=True)
class Moment:
    """A run at a moment.

    Attributes:
        state, reason, outcome, unfinished: see `facts.Facts`.
        benchmarks: those that the run evaluates.
        questions: the pool's questions, by the indices of its rollouts.
    """

    state: str
    reason: str
    outcome: Outcome
    unfinished: Mapping[str, Any]
    benchmarks: Sequence[Benchmark] = ()
    questions: Sequence[Question] = ()


class Job(Protocol):
    """A run in progress (`stages.Job`)."""

    unfinished: dict[str, Any]
    benchmarks: list[Benchmark]
    pool: Pool

    @property
    def n_iterations(self) -> int: ...
    def outcome(self, ended: Ended | None = None) -> Outcome: ...


class Writer:
    """Writes the report of one run. What was read of a finished stage is kept for the next page.

    Args:
        settings: the run's configuration as plain values.

    Attributes:
        last: content of the last page; None before the first.
    """

    def __init__(self, run: RunDir, settings: Mapping[str, Any]):
        self._run, self._settings = run, settings
        self.last: Facts | None = None
        self._changes: list[Change] | None = None
        self._steps: dict[int, list[dict]] = {}
        self._gains: dict[tuple[str, int], Gain | None] = {}
        self._examples: dict[tuple[str, int], list[Example]] = {}

    def follow(self, job: Job) -> None:
        """From now on write the report after every stage of a job that is computed."""
        self._run.after_stage = lambda name: self._stage_done(job, name)

    def _stage_done(self, job: Job, stage: str) -> None:
        """Write the report after a stage, on root."""
        if not self._run.world.is_root:
            return
        t = job.unfinished.get("iteration")
        of = "before the first iteration" if t is None else f"of iteration {t}, of {job.n_iterations} in all"
        self.write_end(job, RUNNING, f"{stage} {of} is done")

    def write_end(self, job: Job, state: str, reason: str = "", ended: Ended | None = None) -> None:
        """Write the report of a job that is in this state, for this reason."""
        now = (job.outcome(ended), job.unfinished, job.benchmarks, job.pool.questions)
        self.write(Moment(state, reason, *now))

    def write(self, now: Moment) -> None:
        """Write report.html. A failure is logged: it must not end the run, whose results are stored elsewhere."""
        try:
            self.last = self.gather(now)
            self._run.write_report({"report.html": page(self.last)})
        except Exception as error:  # noqa: BLE001 - a page that cannot be made is worth less than the run
            log.warning("  report.html is not written: %s", words_of(error, with_type=True))

    def gather(self, now: Moment) -> Facts:
        """Return the content of the page."""
        path = self._run.path
        after = {
            name: max((r["iteration"] for r in now.outcome.iterations if name in r["scores"]), default=-1)
            for name in now.outcome.before
        }
        records = now.outcome.iterations
        gains = {name: self._gain(name, t, records) for name, t in after.items()}
        return Facts(
            path.name,
            now.state,
            now.reason,
            now.outcome,
            time.strftime("%Y-%m-%d %H:%M"),
            now.unfinished,
            self._settings,
            read_text(path / "config.yaml"),
            read_starts(path),
            {name: _place(seconds, work) for name, (seconds, work) in self._run.work().items()},
            self._all_steps([*(r["iteration"] for r in records), now.unfinished.get("iteration", -1)]),
            {name: gain for name, gain in gains.items() if gain},
            self._some_answers(now, after),
            self._all_changes(records),
        )

    def _stage(self, t: int, name: str) -> Stage | None:
        """A finished stage, t = -1 being the time before the first iteration; None if it is not finished."""
        try:
            return self._run.finished_stage("base" if t < 0 else t, name)
        except Damaged:
            return None

    def _rollouts(self, t: int, name: str) -> Rollouts | None:
        stage = self._stage(t, name)
        return stage.read_chunks(Rollouts).sorted() if stage else None

    def _gain(self, name: str, t: int, records: Sequence[Mapping[str, Any]]) -> Gain | None:
        """The gain on a benchmark from before the first iteration to iteration t."""
        if t < 0:
            return None
        if (name, t) not in self._gains:
            before, after = (self._rollouts(at, f"evaluate/{name}") for at in (-1, t))
            measured = [difficulty.measure(rollouts) for rollouts in (before, after) if rollouts is not None]
            change = difference(*measured) if len(measured) == 2 else None
            score = next(r["scores"][name] for r in records if r["iteration"] == t)
            self._gains[name, t] = Gain(self._before(name, records), score, *change) if change else None
        return self._gains[name, t]

    @staticmethod
    def _before(name: str, records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return next(r["scores_before"][name] for r in records if name in r["scores_before"])

    def _all_steps(self, iterations: Sequence[int]) -> dict[int, list[dict]]:
        for t in iterations:
            if t >= 0 and t not in self._steps and (stage := self._stage(t, "policy")):
                self._steps[t] = stage.read_json("steps", list)
        return self._steps

    def _some_answers(self, now: Moment, after: Mapping[str, int]) -> tuple[str, Sequence[Example]]:
        """Responses of the first benchmark before and after; of the exploration where the run ended without pairs."""
        unfinished = now.unfinished.get("iteration", -1)
        if now.benchmarks and now.state != ENDED:
            benchmark = now.benchmarks[0]
            t = after.get(benchmark.name, -1)
            words = f"Of {benchmark.name}: before the run, and after iteration {t}." if t >= 0 else "Before the run."
            return f"{words} {_CHOICE}", self._compared(f"evaluate/{benchmark.name}", t, benchmark.questions)
        t = max([unfinished, *(r["iteration"] for r in now.outcome.iterations)], default=-1)
        words = f"Explored in iteration {t}, by the policy at its start."
        return f"{words} {_CHOICE}", self._compared("explore", t, now.questions)

    def _compared(self, name: str, t: int, questions: Sequence[Question]) -> Sequence[Example]:
        if (name, t) not in self._examples:
            before = self._rollouts(-1, name) if name != "explore" else None
            after = self._rollouts(t, name) if t >= 0 else None
            if before is None and after is None:
                return []
            self._examples = {(name, t): answers.compare(before, after, questions)}
        return self._examples[name, t]

    def _all_changes(self, records: Sequence[Mapping[str, Any]]) -> list[Change]:
        if self._changes is None:
            configs = agreement.history(self._run.path)
            hashes = [*map(agreement.hash_of, configs)]
            self._changes = []
            for i, (old, new) in enumerate(itertools.pairwise(configs)):
                since = sum(record.get("config_hash") in hashes[: i + 1] for record in records)
                found = agreement.differences(old, new).items()
                self._changes += [Change(since, key, *values) for key, values in found]
        return self._changes


_CHOICE = "The first response to each of some questions, different outcomes first; all are in the run folder."


def _place(seconds: float, work: Work) -> Place:
    ranks = [work.get(rank, (0.0, 0.0)) for rank in range(max(work, default=ALL_RANKS) + 1)]
    return Place(seconds, sum(tokens for _, tokens in work.values()), ranks)
