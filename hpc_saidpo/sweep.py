"""Many runs under one root -> a row for each run and each evaluation, one picture, one HTML page. All is only read."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from pydantic import TypeAdapter, ValidationError
from scipy.special import stdtrit

from . import difficulty, evaluate
from .records import Rollouts, RunError
from .store import files
from .store.agreement import MAY_DIFFER
from .store.run import iterations_of, stages_of

NOT_A_SETTING = set(MAY_DIFFER) - {"loop.iterations"}  # where a run lies and how it is started, not what it computes
SHOWN_KEYS, SHOWN_CHARACTERS, MAX_LEGEND = 6, 30, 12
EVALUATION = ("name", "policy", "benchmark", "n_questions", "samples", "accuracy", "low95", "high95", "state")
HOW_TO_READ = (
    "Dots are runs; hollow ones are unfinished and in no mean. Bars are the mean of the complete runs and its 95 % "
    "interval, mean ± t·sd/√n, where there are n ≥ 2; those without an end go on outside. Grey: mean accuracy before."
)


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
    keys = [key for key in keys if len({_text(known.get(key)) for known in readable}) > 1]
    scores = [scores for run in runs for r in run.records for scores in (r.scores_before, r.scores)]
    evaluations = [row for path in _run_folders(root / "evaluate") for row in _read_evaluation(path)]
    return Sweep(root, runs, evaluations, keys, list(dict.fromkeys(name for names in scores for name in names)))


def _run_folders(root):
    """Those with a config.yaml; numbers in their names count as numbers."""
    parts = {p.parent: re.split(r"(\d+)", p.parent.name) for p in root.glob("*/config.yaml")}
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
    settings = _flat(files.parsed(path, yaml.safe_load))
    if type(settings.get("loop.iterations")) is not int:
        raise RunError(f"{path} has no loop.iterations, a whole number: put back the configuration of the run")
    return settings


def _flat(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix: int(value) if isinstance(value, float) and value.is_integer() else value}  # 2.0 is 2
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


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
    row = dict.fromkeys(
        ("name", "policy", "benchmark", "n_questions", "samples", "accuracy", "low95", "high95", "state")
    )
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


def run_rows(sweep: Sweep) -> list[dict]:
    """The rows of sweep.csv; accuracies, their intervals and yields are shares of 1."""
    return [_run_row(sweep, run) for run in sweep.runs]


def _run_row(sweep, run):
    row = {"name": run.name, **{key: _text(run.settings.get(key)) for key in sweep.keys}}
    row |= {"iterations_finished": len(run.records), "iterations_asked": run.asked}
    for name in sweep.benchmarks:
        after = run.after(name)
        row |= {f"{name}_before": run.before(name).accuracy, f"{name}_after": after.accuracy}
        row |= {f"{name}_low95": after.low95, f"{name}_high95": after.high95}
    return row | {
        "mean_pair_yield": float(np.mean([r.pair_yield for r in run.records])) if run.records else None,
        "pairs": sum(r.pairs for r in run.records),
        "explored_questions": sum(r.explored_questions for r in run.records),
        "failure_signatures": sum(len(r.signatures) for r in run.records),
        "state": run.state,
    }


def _text(value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def tables(sweep: Sweep) -> list[list[list[str]]]:
    """The runs, and the evaluations if there are any, for reading: each a header and rows, shares in percent."""
    keys = sweep.keys[:SHOWN_KEYS]
    scores = [f"{name} before → after [95 %]" for name in sweep.benchmarks]
    runs = [["run", *keys, "iterations", *scores, "pair yield", "pairs", "explored", "signatures", "state"]]
    for run, row in zip(sweep.runs, run_rows(sweep), strict=True):
        scores = [f"{_percent(row[f'{b}_before'])} → {_interval(*_of(row, b))}" for b in sweep.benchmarks]
        runs.append(
            [run.name, *(_short(row[key]) for key in keys), f"{row['iterations_finished']} of {run.asked}", *scores]
            + [_percent(row["mean_pair_yield"])]
            + [str(row[key]) for key in ("pairs", "explored_questions", "failure_signatures", "state")]
        )
    evaluations = [["evaluation", "policy", "benchmark", "questions", "samples", "accuracy [95 %]", "state"]]
    for row in sweep.evaluations:
        shown = [_short(_text(row[key])) for key in ("name", "policy", "benchmark", "n_questions", "samples")]
        interval = _interval(row["accuracy"], row["low95"], row["high95"])
        evaluations.append([*shown, interval, row["state"].partition(":")[0]])
    return [runs, evaluations] if sweep.evaluations else [runs]


def _of(row, benchmark):
    return (row[f"{benchmark}_{what}"] for what in ("after", "low95", "high95"))


def _percent(share):
    return "-" if share is None else f"{100 * share:.1f} %"


def _interval(accuracy, low, high):
    return "-" if accuracy is None else f"{_percent(accuracy)} [{100 * low:.1f}, {100 * high:.1f}]"


def _short(text):
    text = " ".join(text.split()) or "-"
    return text if len(text) <= SHOWN_CHARACTERS else "…" + text[1 - SHOWN_CHARACTERS :]


def notes(sweep: Sweep) -> list[str]:
    """Runs and evaluations that are damaged, unfinished, or show failure signatures: one line each."""
    told = [f"{run.name}: {note}" for run in sweep.runs for note in run.notes()]
    return told + [
        f"evaluate/{row['name']}: {row['benchmark'] or 'no benchmark'}: {row['state']}"
        for row in sweep.evaluations
        if row["state"] != "done"
    ]


def text(sweep: Sweep) -> str:
    """The report for a console."""
    lines = []
    for table in tables(sweep):
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table] + [""]
    hidden = len(sweep.keys) - SHOWN_KEYS
    lines += [f"The runs differ in {hidden} more settings: see sweep.csv", ""] if hidden > 0 else []
    return "\n".join([*lines, *notes(sweep)])


def write(sweep: Sweep, out: Path) -> list[Path]:
    """Write sweep.csv, evaluations.csv, sweep.png and sweep.html; gives their paths.

    Raises:
        RunError: the disk refuses.
    """
    contents = {
        "sweep.csv": _csv(run_rows(sweep)).encode(),
        "evaluations.csv": _csv(sweep.evaluations).encode(),
        "sweep.png": curves(sweep),
        "sweep.html": page(sweep).encode(),
    }
    files.make_folder(out)
    for name, content in contents.items():
        files.write_bytes(out / name, content)
    return [out / name for name in contents]


def _csv(rows):
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0] if rows else EVALUATION, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def page(sweep: Sweep) -> str:
    """The report as one HTML page, beside sweep.png."""
    shown = "".join(f'<div style="overflow-x:auto"><table>{_html_rows(table)}</table></div>' for table in tables(sweep))
    bullets = "".join(f"<li>{html.escape(note)}</li>" for note in notes(sweep))
    return f"""<!doctype html><meta charset="utf-8"><title>Sweep {html.escape(sweep.root.resolve().name)}</title>
<style>body{{font:15px system-ui,sans-serif;max-width:90em;margin:2em auto;padding:0 1em}}
table{{border-collapse:collapse;margin:1em 0}}
td,th{{border:1px solid #ccc;padding:.2em .5em;text-align:left}}th{{background:#f3f3f3}}img{{max-width:100%}}</style>
<h1>Sweep {html.escape(str(sweep.root))}: {len(sweep.runs)} runs</h1>
<img src="sweep.png" alt="accuracy, pair yield and entropy of the runs"><p>{HOW_TO_READ}</p>
<h2>Unfinished, damaged, or with failure signatures</h2>{f"<ul>{bullets}</ul>" if bullets else "<p>none</p>"}
<h2>Tables</h2>{shown}<p>All settings in which the runs differ: <a href="sweep.csv">sweep.csv</a></p>
"""


def _html_rows(table):
    cells = [[html.escape(cell) for cell in row] for row in table]
    head = "".join(f"<th>{cell}</th>" for cell in cells[0])
    return f"<tr>{head}</tr>" + "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in cells[1:])


def axes_of(sweep: Sweep) -> tuple[str | None, list[str]]:
    """(the key of the x axis or None for one place per system, the further keys that tell the runs apart).

    A numeric key makes an axis only where runs that agree in all the rest stand at two or more of its values on
    average: a list of systems that happen to differ in a number is no curve over it. Seeds tell no systems apart.
    """
    keys = [key for key in sweep.keys if key.rpartition(".")[2] != "seed"]
    known = [run.settings for run in sweep.runs if run.settings]

    def n_distinct(some):
        return len({_values(settings, some) for settings in known})

    numeric = [key for key in keys if all(type(settings.get(key)) in (int, float) for settings in known)]
    for x in sorted(numeric, key=lambda key: -n_distinct([key])):
        rest = [key for key in keys if key != x]
        if n_distinct(keys) >= 2 * n_distinct(rest):
            return x, rest
    return None, keys


def _values(settings, keys):
    return tuple(_text(settings.get(key)) for key in keys)


def mean_interval(values) -> tuple[float, float, float]:
    """Mean of n >= 2 values and its 95 % interval, mean ± t·sd/√n with Student's t of n - 1 degrees of freedom."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / n**0.5)
    return mean, mean - half, mean + half


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

    return of(Path(run.settings.get("policy.path") or ".")), of(made_at, run.path, run.path.resolve())


def curves(sweep: Sweep) -> bytes:
    """Accuracy at the end and over the iterations, pair yield, entropy of the draw, as one PNG."""
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, half the time to import

    marks = _Marks(sweep)
    panels = []  # (title, label of the x axis, how it is drawn, values by run)
    for name in sweep.benchmarks:
        ends = {run.name: (run.before(name).accuracy, run.after(name).accuracy) for run in marks.runs}
        panels.append((f"{name}: accuracy after the last iteration", marks.axis_label, marks.draw_ends, ends))
        lines = {run.name: _accuracies(run, name) for run in marks.runs}
        panels.append((f"{name}: accuracy", "rounds of training", marks.draw_lines, lines))
    apart = dict.fromkeys(row["benchmark"] for row in sweep.evaluations if row["state"] == "done")
    for name in [name for name in apart if name not in sweep.benchmarks]:
        ends = {run.name: evaluated(sweep, run, name) for run in marks.runs}
        panels.append((f"{name}: accuracy, evaluated apart", marks.axis_label, marks.draw_ends, ends))
    for title, key in (("Pair yield", "pair_yield"), ("Entropy of the draw (100 %: uniform)", "entropy_share")):
        lines = {run.name: [(r.iteration, getattr(r, key)) for r in run.records] for run in marks.runs}
        panels.append((title, "iteration", marks.draw_lines, lines))
    n_rows = -(-len(panels) // 2)
    figure = Figure(figsize=(12, 4 * n_rows + 1), layout="constrained")
    figure.suptitle(HOW_TO_READ.replace("Bars", "\nBars", 1), fontsize=9)
    axes = list(figure.subplots(n_rows, 2, squeeze=False).flat)
    for axis, (title, label, draw, values) in zip(axes, panels, strict=False):
        draw(axis, values)
        axis.set(title=title, xlabel=label, ylabel="%")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    marks.draw_legend(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _accuracies(run, benchmark):
    """(rounds of training, accuracy), the policy before the run first."""
    after = [(r.iteration + 1, r.scores[benchmark].accuracy) for r in run.records if benchmark in r.scores]
    return [(0, run.before(benchmark).accuracy), *after]


class _Marks:
    """Where a run stands on the x axis and in which colour; draws the panels."""

    def __init__(self, sweep):
        from matplotlib import colormaps

        self.x, self.rest = axes_of(sweep)
        self.runs = [run for run in sweep.runs if run.settings]
        by = [self.x] if self.x and not self.rest else self.rest
        self.key = {run.name: _values(run.settings, by) for run in self.runs}
        if self.x:
            self.place = {run.name: run.settings[self.x] for run in self.runs}
            self.places = sorted(set(self.place.values()))
        else:
            self.place, self.places = self.key, list(dict.fromkeys(self.key.values()))
        if self.rest:
            keys = list(dict.fromkeys(self.key.values()))
            name = "tab10" if len(keys) <= 10 else "turbo"
            colours = colormaps[name](range(len(keys)) if name == "tab10" else np.linspace(0.05, 0.95, len(keys)))
        else:
            keys = [(_text(place),) for place in self.places] if self.x else self.places
            colours = colormaps["viridis"](np.linspace(0, 0.85, len(keys)))  # ordered, as the values are
        self.colour = dict(zip(keys, colours, strict=True))
        self.label, self.title = self._labels(keys, by)
        uneven = self.x and np.ptp(np.diff(self.places)) > 1e-9 * max(map(abs, self.places))
        self.axis_label = f"{self.x} (not to scale)" if uneven else self.x or "system"

    def _labels(self, keys, by):
        if self.x:
            return {key: ", ".join(key) for key in keys}, ", ".join(by)
        short = {}
        for key in keys:
            names = {re.sub(r"[-_,.=]*seed[-_,.=]*\d+", "", r.name) for r in self.runs if self.key[r.name] == key}
            short[key] = names.pop() if len(names) == 1 else ", ".join(key) or "all runs"
        return short, "system"

    def draw_ends(self, axis, ends):
        """A dot per run over its place, mean and interval beside them, the mean before as a grey line.

        Args:
            ends: run name -> (accuracy before, accuracy after), shares of 1.
        """
        lines = list(dict.fromkeys(_values(run.settings, self.rest) for run in self.runs))
        seen = [100 * share for both in ends.values() for share in both if share is not None]
        for number, line in enumerate(lines):
            room = 0.6 / len(lines) if self.x else 0.6  # lines stand side by side, systems have a place of their own
            shift = (number - (len(lines) - 1) / 2) * room if self.x else 0.0
            means = []
            for at, place in enumerate(self.places):
                own = [r for r in self.runs if self.place[r.name] == place and _values(r.settings, self.rest) == line]
                own = [run for run in own if ends[run.name][1] is not None]
                if not own:
                    continue
                colour = self.colour[self.key[own[0].name]]
                for run in own:
                    face = colour if run.state == "complete" else "none"
                    axis.scatter(at + shift, 100 * ends[run.name][1], s=28, color=face, edgecolors=[colour], zorder=3)
                complete = [100 * ends[run.name][1] for run in own if run.state == "complete"]
                if len(complete) > 1:
                    mean, low, high = mean_interval(complete)
                    means.append((at + shift + room / 4, mean))
                    seen += [low, high] if len(complete) > 2 else []
                    axis.errorbar(
                        *means[-1], [[mean - low], [high - mean]], fmt="_", color=colour, markersize=10, capsize=3
                    )
            if self.x and means:
                axis.plot(*zip(*means, strict=True), color=colour if self.rest else "0.4", linewidth=1, zorder=1)
        before = [before for before, _ in ends.values() if before is not None]
        if before:
            axis.axhline(100 * np.mean(before), color="grey", linewidth=1, linestyle="--")
        labels = [str(place) if self.x else self.label[place] for place in self.places]
        slanted = {"rotation": 30, "ha": "right"} if max(map(len, labels), default=0) * len(labels) > 60 else {}
        axis.set_xticks(range(len(labels)), labels, **slanted)
        if seen:
            # Two runs have an interval 13 times their distance wide: it would flatten everything else.
            margin = 0.08 * (max(seen) - min(seen)) or 1.0
            axis.set_ylim(min(seen) - margin, max(seen) + margin)

    def draw_lines(self, axis, lines):
        """A thin line per run.

        Args:
            lines: run name -> its points (rounds or iteration, share of 1 or None).
        """
        from matplotlib.ticker import MaxNLocator

        for name, points in lines.items():
            points = [(t, 100 * share) for t, share in points if share is not None]
            if points:
                axis.plot(*zip(*points, strict=True), color=self.colour[self.key[name]], linewidth=1, marker=".")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))

    def draw_legend(self, figure):
        """Colours by name; of too many to read, none: the first panel names them along its axis."""
        from matplotlib.lines import Line2D

        if 1 < len(self.colour) <= MAX_LEGEND:
            handles = [Line2D([], [], color=c, marker=".", label=self.label[key]) for key, c in self.colour.items()]
            figure.legend(handles=handles, title=self.title, loc="outside lower center", ncols=6)
