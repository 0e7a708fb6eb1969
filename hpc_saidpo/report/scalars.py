"""The figures of a run for other programs: CSV, event files of TensorBoard, an offline run of Weights & Biases.

A scalar has a tag, a step and a value. Figures of an iteration have its number as step; accuracies (accuracy/NAME) have
the number of finished rounds of training, so that 0 is the policy before training. Figures of the DPO steps (train/...)
have the number of the optimizer step, counted over all iterations.
"""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError, shown, visible
from ..progress import log
from ..reading import parse_json, parse_yaml
from ..store import files
from ..store.layout import TENSORBOARD
from ..store.life import is_number
from ..store.stage import Stage

EVENTS = "events.out.tfevents.{:010d}.{}.iter-{:03d}"  # TensorBoard reads the files of a folder by name


@dataclass(frozen=True)
class Scalars:
    """The scalars of one iteration.

    Attributes:
        iteration: (tag, step, value), without the optimizer steps.
        steps: (tag, step, value) of every optimizer step; empty where they were removed.
    """

    t: int
    iteration: list[tuple[str, int, float]]
    steps: list[tuple[str, int, float]]


def read_scalars(run: Path, only: int | None = None) -> Iterator[Scalars]:
    """Yield the scalars of the finished iterations of a run, in order.

    Args:
        only: number of one iteration; None: all.

    Raises:
        RunError: there is no such run, none of its iterations is finished, or a file is damaged.
    """
    records = files.read_parsed(run / "metrics.jsonl", lambda text: [*map(parse_json, text.splitlines())], list)
    if not records:
        raise RunError(f"{shown(run)} has no finished iteration, so there are no metrics: wait, or name another run")
    if any(not isinstance(record, dict) or not isinstance(record.get("iteration"), int) for record in records):
        raise RunError(f"{shown(run / 'metrics.jsonl')} has a line that is no record of an iteration: restore it")
    if only is not None and only not in [record["iteration"] for record in records]:
        raise RunError(f"{shown(run)} has no finished iteration {only}: name another --iteration")
    done = 0
    for record in records:
        t = record["iteration"]
        policy = Stage(run / f"iter-{t:03d}" / "policy", {"iteration": t, "stage": "policy"})
        steps = policy.read_json("steps", list) if policy.done else []
        if only in (None, t):
            yield Scalars(t, _of_iteration(record), _of_steps(steps, done))
        done += len(steps)


def _of_iteration(record: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    t = record["iteration"]
    found = [(name, t, value) for name, value in record.items() if is_number(value) and name != "iteration"]
    for key, step in (("scores_before", 0), ("scores", t + 1)) if t == 0 else (("scores", t + 1),):
        scores = record.get(key)
        named = scores.items() if isinstance(scores, dict) else ()
        values = {name: score.get("accuracy") for name, score in named if isinstance(score, dict)}
        found += [(f"accuracy/{name}", step, value) for name, value in values.items() if is_number(value)]
    return [(tag, step, float(value)) for tag, step, value in found]


def _of_steps(steps: list[Any], done: int) -> list[tuple[str, int, float]]:
    """The scalars of an iteration's optimizer steps, of which `done` were done before."""
    rows = [(done + i, step) for i, step in enumerate(steps) if isinstance(step, dict)]
    return [(f"train/{k}", i, float(v)) for i, step in rows for k, v in step.items() if is_number(v) and k != "step"]


def write_csv(run: Path, out: Path, only: int | None = None) -> int:
    """Write a row for each iteration, a column for each figure that is a number. Returns the number of rows.

    accuracy/NAME is the accuracy after the iteration. Iteration 0 has that before training, too: accuracy/NAME/before.

    Raises:
        RunError: as `read_scalars`, or the disk refuses the file.
    """
    rows = []
    for scalars in read_scalars(run, only):
        named = {tag + "/before" * _is_before(tag, step, scalars.t): value for tag, step, value in scalars.iteration}
        rows.append({"iteration": scalars.t, **named})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.make_folder(out.parent)
    files.write_text(out, visible(buffer.getvalue()))
    return len(rows)


def _is_before(tag: str, step: int, t: int) -> bool:
    return tag.startswith("accuracy/") and step <= t


def write_tensorboard(run: Path, out: Path, only: int | None = None) -> int:
    """Write an event file for each iteration into a folder, unless it is there. Returns the number of iterations.

    `tensorboard --logdir FOLDER` reads them, also while further ones are added.

    Args:
        only: number of one iteration; None: all.

    Raises:
        RunError: as `read_scalars`; or tensorboard is not installed.
    """
    require_tensorboard()
    files.make_folder(out)
    n = 0
    for scalars in read_scalars(run, only):
        begun = int((run / "config.yaml").stat().st_mtime)
        path = out / EVENTS.format(begun, run.resolve().name, scalars.t)
        if not path.exists():
            at = (run / f"iter-{scalars.t:03d}").stat().st_mtime
            files.write_bytes(path, _events([*scalars.iteration, *scalars.steps], at))
        n += 1
    return n


def follow(run: Path, t: int) -> None:
    """Write the event file of an iteration that has finished into the run folder. A failure ends no run: it is logged.

    Called on root.
    """
    try:
        write_tensorboard(run, run / TENSORBOARD, t)
    except RunError as error:
        log.warning("  no event file of iteration %d: %s", t, error)


def require_tensorboard() -> tuple[Any, Any, Any]:
    """Return the classes Event, Summary and RecordWriter of tensorboard.

    Raises:
        RunError: it is not installed.
    """
    try:
        names = ("compat.proto.event_pb2", "compat.proto.summary_pb2", "summary.writer.record_writer")
        event, summary, writer = (importlib.import_module(f"tensorboard.{name}") for name in names)
    except ImportError as error:
        raise RunError(
            f"event files of TensorBoard need the package tensorboard, which cannot be imported ({error}): pip install "
            "'hpc_saidpo[tensorboard]', or export --what metrics --format csv"
        ) from error
    return event.Event, summary.Summary, writer.RecordWriter


def _events(scalars: list[tuple[str, int, float]], at: float) -> bytes:
    """Return the content of an event file.

    Args:
        at: time of the scalars, seconds since 1970.
    """
    event, summary, writer_of = require_tensorboard()
    buffer = io.BytesIO()
    writer = writer_of(buffer)
    writer.write(event(wall_time=at, file_version="brain.Event:2").SerializeToString())
    for tag, step, value in scalars:
        one = summary(value=[summary.Value(tag=visible(tag), simple_value=value)])
        writer.write(event(wall_time=at, step=step, summary=one).SerializeToString())
    return buffer.getvalue()


def write_wandb(run: Path, out: Path, only: int | None = None) -> int:
    """Write an offline run of Weights & Biases into a folder. Returns the number of iterations. Nothing is sent.

    `wandb sync FOLDER/wandb/offline-run-...` sends it, if you wish.

    Raises:
        RunError: as `read_scalars`; or wandb is not installed.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise RunError(
            f"--format wandb needs the package wandb, which cannot be imported ({error}): pip install "
            "'hpc_saidpo[wandb]', or use --format tensorboard or csv"
        ) from error
    every = list(read_scalars(run, only))
    files.make_folder(out)
    config = files.read_parsed(run / "config.yaml", parse_yaml, dict) or {}
    quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False)
    logged = wandb.init(
        mode="offline", dir=str(out), project="hpc_saidpo", name=run.resolve().name, config=config, settings=quiet
    )
    for prefix, step in (("*", "iteration"), ("train/*", "train/step"), ("accuracy/*", "rounds")):
        logged.define_metric(prefix, step_metric=step)
    for scalars in every:
        by_step = {"train/step": scalars.steps, "rounds": _accuracies(scalars), "iteration": _rest(scalars)}
        for name, group in by_step.items():
            for step in dict.fromkeys(step for _, step, _ in group):
                logged.log({name: step, **{tag: value for tag, at, value in group if at == step}})
    logged.finish()
    return len(every)


def _accuracies(scalars: Scalars) -> list[tuple[str, int, float]]:
    return [row for row in scalars.iteration if row[0].startswith("accuracy/")]


def _rest(scalars: Scalars) -> list[tuple[str, int, float]]:
    return [row for row in scalars.iteration if not row[0].startswith("accuracy/")]


WRITERS = {"csv": write_csv, "tensorboard": write_tensorboard, "wandb": write_wandb}
