"""Reading: the runs under a root, and their stand-alone evaluations. Nothing is written."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from .. import difficulty, evaluate
from ..records import Rollouts, RunError
from ..store import files
from ..store.agreement import MAY_DIFFER, flat
from ..store.run import folder_of, iterations_of, stages_of

NOT_A_SETTING = set(MAY_DIFFER) - {"loop.iterations"}  # where a run lies and how it is started, not what it computes
EVALUATION = ("name", "policy", "benchmark", "n_questions", "samples", "accuracy", "low95", "high95", "state")


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
    """One run: its flattened settings, its finished iterations, and what is wrong with it, if anything is."""

    path: Path
    settings: dict = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    damage: str = ""

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def asked(self) -> int:
        """Iterations asked for; a run that was prolonged keeps the first loop.iterations in its config.yaml."""
        return max(self.settings.get("loop.iterations", 0), len(self.records))

    @property
    def state(self) -> str:
        if self.damage or not self.records:
            return "damaged" if self.damage else "no iteration yet"
        return "complete" if len(self.records) == self.asked else "unfinished"

    def before(self, benchmark: str) -> Score:
        """Of the policy before the first iteration that has the benchmark."""
        return next((r.scores_before[benchmark] for r in self.records if benchmark in r.scores_before), NO_SCORE)

    def after(self, benchmark: str) -> Score:
        """Of the policy after the last iteration that has the benchmark."""
        return next((r.scores[benchmark] for r in reversed(self.records) if benchmark in r.scores), NO_SCORE)

    def notes(self) -> list[str]:
        """What a reader of its figures has to know: damage, what is not finished, failure signatures."""
        found = [self.damage] if self.damage else []
        if self.state in ("unfinished", "no iteration yet"):
            done = [str(stage.path.relative_to(self.path)) for stage in stages_of(self.path) if stage.done]
            last = f"last finished stage {done[-1]}" if done else "no stage is finished"
            found.append(f"{self.state}: {len(self.records)} of {self.asked} iterations, {last}")
        return found + [f"iteration {r.iteration}: {text}" for r in self.records for text in r.signatures]


@dataclass(frozen=True)
class Sweep:
    """The runs and evaluations under a root.

    Attributes:
        evaluations: rows of evaluations.csv.
        keys: the settings in which the runs differ.
        benchmarks: all that some run has scores of.
    """

    root: Path
    runs: list[Run]
    evaluations: list[dict]
    keys: list[str]
    benchmarks: list[str]


def read(root: Path) -> Sweep:
    """Read the runs in ROOT and the stand-alone evaluations in ROOT/evaluate.

    Raises:
        RunError: there is no run. What is wrong with one of several is told in its row.
    """
    runs = [_read_run(path) for path in _run_folders(root)]
    if not runs:
        raise RunError(f"{root} holds no run (a folder with a config.yaml): name the folder of the runs (run.root)")
    readable = [run.settings for run in runs if run.settings]
    keys = [key for key in dict.fromkeys(key for known in readable for key in known) if key not in NOT_A_SETTING]
    keys = [key for key in keys if len({text_of(known.get(key)) for known in readable}) > 1]
    scores = [scores for run in runs for r in run.records for scores in (r.scores_before, r.scores)]
    evaluations = [row for path in _run_folders(root / "evaluate") for row in _read_evaluation(path)]
    return Sweep(root, runs, evaluations, keys, list(dict.fromkeys(name for names in scores for name in names)))


def _run_folders(root):
    """Those with a config.yaml, but for hidden ones (a preparation); numbers in their names count as numbers."""
    parts = {p.parent: re.split(r"(\d+)", p.parent.name) for p in root.glob("[!.]*/config.yaml")}
    return sorted(parts, key=lambda path: [int(s) if i % 2 else s for i, s in enumerate(parts[path])])


def _read_run(path):
    try:
        settings = _settings(path / "config.yaml")
    except (RunError, OSError) as error:
        return Run(path, damage=str(error))
    try:
        records = files.parsed(path / "metrics.jsonl", _records) or []
    except (RunError, OSError) as error:
        return Run(path, settings, damage=str(error))
    finished = sum((folder / "DONE").exists() for _, folder in iterations_of(path))
    lost = (
        f"metrics.jsonl has {len(records)} of {finished} finished iterations: start the run again, it is written anew"
    )
    return Run(path, settings, records, lost if len(records) < finished else "")


def _settings(path):
    settings = {key: _whole(value) for key, value in flat(files.parsed(path, yaml.safe_load)).items()}
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


def _read_evaluation(path):
    row = dict.fromkeys(EVALUATION)
    row["name"] = path.name
    try:
        settings = _settings(path / "config.yaml")
    except (RunError, OSError) as error:
        return [{**row, "state": f"damaged: {error}"}]
    stages = {s.path.name: s for s in stages_of(path) if s.facts["iteration"] == -1}
    asked = dict.fromkeys([*(Path(b).stem for b in settings.get("evaluate.benchmarks") or []), *stages])
    row["policy"] = settings.get("policy.path")
    return [{**row, "benchmark": b, **_evaluated(stages.get(b))} for b in asked or [None]]


def _evaluated(stage):
    if stage is None or not stage.done:
        return {"state": "unfinished"}
    try:
        stage.check_complete()
        scores = evaluate.accuracy(difficulty.measure(stage.read_chunks(Rollouts)))
    except (RunError, OSError) as error:
        return {"state": f"damaged: {error}"}
    return {"samples": scores.pop("n_samples"), **scores, "state": "done"}


def text_of(value) -> str:
    """A setting's value for reading."""
    if isinstance(value, list):
        return f"[{', '.join(map(text_of, value))}]"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def evaluated(sweep: Sweep, run: Run, benchmark: str) -> tuple[float | None, float | None]:
    """(before, after): accuracies from the stand-alone evaluations of the policies a run began and ended with.

    Of several evaluations of one policy, the one with most rollouts counts.
    """
    # A root that was moved is known by the place where the run was made: policy.path names that.
    made_at = Path(str(run.settings.get("run.root")), str(run.settings.get("run.name")))
    done = [row for row in sweep.evaluations if row["state"] == "done" and row["benchmark"] == benchmark]
    done.sort(key=lambda row: row["n_questions"] * row["samples"])

    def of(*paths):
        return next((row["accuracy"] for row in reversed(done) if Path(row["policy"] or ".") in paths), None)

    newest = Path(folder_of(len(run.records) - 1), "policy", "model")
    last = [folder / newest for folder in (made_at, run.path, run.path.resolve())]
    return of(Path(run.settings.get("policy.path") or ".")), of(*last)
