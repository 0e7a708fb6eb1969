"""A run directory: the only module that names a path in a run, or opens one for writing.

    runs/<name>/
      config.yaml          the resolved configuration
      env.json             versions, hosts, ranks: one entry per start
      metrics.jsonl        one line per iteration
      log/                 one file per rank and start
      base/                the policy before training: its evaluation
      iter-000/ probe/ draw/ explore/ pairs/ policy/ evaluate/
      report.html
    runs/.shared/          embeddings, clusters, converted policies: keyed by content, shared by runs

Files are written under a temporary name and renamed; a stage's DONE comes last, from root, after a barrier; readers
trust nothing without it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import h5py
import numpy as np
import yaml
from pydantic import Field

from .parallel import World
from .records import Columns, RunError, settings

SCHEMA_VERSION = 1
# A change of these does not change what an iteration computes: a run may go on with other values.
MAY_DIFFER = ("run.root", "run.name", "run.threads", "run.accept_changes", "loop.iterations")
# A change of these makes the stored question indices mean something else: a run can never go on with other values.
MUST_AGREE = ("pool.",)


@settings()
class Config:
    root: Annotated[str, Field(min_length=1)] = "runs"
    name: Annotated[str, Field(min_length=1)] = "saidpo"
    seed: Annotated[int, Field(ge=0)] = 0
    deterministic: bool = False
    threads: Annotated[int, Field(ge=0)] = 0
    accept_changes: bool = False


class RunDir:
    """One run's folder. Methods are collective unless they say otherwise; only root touches shared files."""

    def __init__(self, path: Path, world: World):
        self.path, self.world = Path(path), world

    @classmethod
    def open(cls, config: Config, resolved: dict, env: dict, world: World) -> RunDir:
        """Create the run's folder, or go on in it.

        Args:
            resolved: the whole configuration as plain values.
            env: facts about this start, appended to env.json.

        Raises:
            RunError: the folder exists with another configuration.
        """
        run = cls(Path(config.root) / config.name, world)
        world.on_root(lambda: run._open_on_root(config, resolved, env))
        return run

    def _open_on_root(self, config, resolved, env):
        self.path.mkdir(parents=True, exist_ok=True)
        stored = self.path / "config.yaml"
        if stored.exists():
            changes = _differences(yaml.safe_load(stored.read_text()), resolved)
            if changes and not any(self.path.rglob("*.h5")):  # nothing was made with it: no reason to hold to it
                stored.unlink()
            elif changes:
                self._refuse(changes, config.accept_changes)
                self._set_aside_unfinished()
                os.replace(stored, _old_name(stored))
        if not stored.exists():
            _write_text(stored, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        starts = self.path / "env.json"
        entries = json.loads(starts.read_text()) if starts.exists() else []
        _write_text(starts, json.dumps([*entries, env], indent=1))

    def _refuse(self, changes: dict, accept: bool):
        listed = "\n".join(f"  {key}: {old!r} in the run, {new!r} now" for key, (old, new) in changes.items())
        fatal = [key for key in changes if key.startswith(MUST_AGREE)]
        if fatal or not accept:
            remedy = (
                "start another one with run.name=...,"
                if fatal
                else (
                    "start another one with run.name=..., go on with run.accept_changes=true (finished iterations "
                    "stay, the unfinished one is set aside and redone with the new values),"
                )
            )
            raise RunError(
                f"run folder {self.path} was made with another configuration:\n{listed}\n{remedy} or change it back"
            )

    def _set_aside_unfinished(self):
        """Keep, under another name, what belongs to the old configuration: iterations that did not finish, and the
        evaluation before the first one unless an iteration has built on it."""
        base = [] if self.finished_iterations() else [self.path / "base"]
        for folder in [*base, *sorted(self.path.glob("iter-[0-9][0-9][0-9]"))]:
            if folder.exists() and not (folder / "DONE").exists():
                os.replace(folder, _old_name(folder))

    def log_path(self) -> Path:
        """Where this rank logs. Not collective: a file of its own on every rank."""
        folder = self.path / "log"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"rank-{self.world.rank:04d}.log"

    def stage(self, iteration: int | str, name: str, compute: Callable[[Stage], None], load: Callable[[Stage], object]):
        """The only resume idiom: if the stage is done, load it; otherwise compute it, mark it done, load it.

        What is returned always comes from disk, so a resumed run sees exactly what an uninterrupted one sees.

        Args:
            iteration: its number, or "base" for what comes before the first.
            compute: writes the stage's files; called on every rank.
            load: called on root, its result given to every rank.
        """
        stage = self._stage(iteration, name)
        if not self.world.on_root(lambda: stage.done):
            self.world.on_root(stage.prepare)
            compute(stage)
            self.world.barrier()
            self.world.on_root(stage.mark_done)
        return self.world.on_root(lambda: load(stage))

    def shared(self, name: str, key: str, compute: Callable[[Stage], None], load: Callable[[Stage], object]):
        """Like `stage`, for an artefact of the pool or the model: beside the runs, keyed by content.

        `compute` is called on root only, in a folder of its own that appears whole or not at all: several jobs that
        make the same artefact at the same moment each make it, and the first one's is used.
        """
        final = Stage(self.path.parent / ".shared" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}")

        def on_root():
            if not final.done:
                scratch = Stage(final.path.with_name(f".{final.path.name}.{os.uname().nodename}.{os.getpid()}"))
                shutil.rmtree(scratch.path, ignore_errors=True)
                scratch.prepare()
                compute(scratch)
                scratch.mark_done()
                try:
                    os.rename(scratch.path, final.path)
                except OSError:
                    if not final.done:
                        raise
                    shutil.rmtree(scratch.path)  # another job was first
            return load(final)

        return self.world.on_root(on_root)

    def finish_iteration(self, iteration: int, metrics: dict) -> None:
        """Record an iteration's metrics and mark it done: metrics.jsonl holds one line per finished iteration."""

        def on_root():
            folder = self._stage(iteration, "").path
            folder.mkdir(parents=True, exist_ok=True)
            _write_text(folder / "metrics.json", json.dumps(metrics))
            _write_text(folder / "DONE", "")
            lines = [(f / "metrics.json").read_text() for f in self.finished_iterations()]
            _write_text(self.path / "metrics.jsonl", "".join(line + "\n" for line in lines))

        self.world.on_root(on_root)

    def finished_iterations(self) -> list[Path]:
        """Folders of the finished iterations, in order. Not collective."""
        return [f for f in sorted(self.path.glob("iter-[0-9][0-9][0-9]")) if (f / "DONE").exists()]

    def write_report(self, files: dict[str, str | bytes]) -> None:
        """Write the report's files into the run folder. Not collective: root only."""
        for name, content in files.items():
            _write_bytes(self.path / name, content.encode() if isinstance(content, str) else content)

    def _stage(self, iteration, name) -> Stage:
        folder = iteration if isinstance(iteration, str) else f"iter-{iteration:03d}"
        return Stage(self.path / folder / name)


class Stage:
    """The folder of one stage. Not collective; one writer per file."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    def prepare(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def mark_done(self) -> None:
        _write_text(self.path / "DONE", "")

    def write(self, name: str, table: Columns) -> None:
        """Write a table as <name>.h5: it appears whole or not at all."""
        with _replacing(self.path / f"{name}.h5") as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update(schema_version=SCHEMA_VERSION, table=type(table).__name__, n_rows=len(table))
            for f in fields(table):
                _write_column(file, f.name, getattr(table, f.name))

    def read(self, name: str, table: type[Columns]) -> Columns:
        """Read a table that `write` wrote.

        Raises:
            RunError: the file is missing or is not such a table.
        """
        path = self.path / f"{name}.h5"
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("table") != table.__name__:
                    raise RunError(f"{path}: holds {file.attrs.get('table')!r}, not {table.__name__}")
                return table(*(_read_column(file, f.name, f.type == "list[str]") for f in fields(table)))
        except (OSError, KeyError) as error:
            raise RunError(f"{path}: not readable as {table.__name__} ({error}): move it away and run again") from error

    def write_chunk(self, index: int, table: Columns) -> None:
        """Write chunk `index` of a stage whose work is spread over ranks."""
        self.write(f"chunk-{index:06d}", table)

    def finished_chunks(self) -> set[int]:
        """The chunks that are already on disk."""
        return {int(path.stem.removeprefix("chunk-")) for path in self.path.glob("chunk-*.h5")}

    def read_chunks(self, table: type[Columns]) -> Columns:
        """All chunks as one table, in chunk order."""
        return table.concat(self.read(f"chunk-{index:06d}", table) for index in sorted(self.finished_chunks()))

    def write_json(self, name: str, value) -> None:
        _write_text(self.path / f"{name}.json", json.dumps(value, indent=1))

    def read_json(self, name: str):
        return json.loads((self.path / f"{name}.json").read_text())

    def write_folder(self, name: str, save: Callable[[Path], None]) -> None:
        """Let `save` fill a folder that appears whole or not at all."""
        temporary = self.path / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save(temporary)
        shutil.rmtree(self.path / name, ignore_errors=True)  # of a stage that never got its DONE
        os.replace(temporary, self.path / name)


def _write_column(file, name, column):
    if isinstance(column, list):
        encoded = [text.encode("utf-8", "surrogatepass") for text in column]
        offsets = np.cumsum([0, *map(len, encoded)])
        data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        file.create_dataset(f"{name}/bytes", data=data, chunks=True if data.size else None, fletcher32=data.size > 0)
        file.create_dataset(f"{name}/offsets", data=offsets, chunks=True, fletcher32=True)
    else:
        file.create_dataset(name, data=column, chunks=True if column.size else None, fletcher32=column.size > 0)


def _read_column(file, name, is_text):
    if not is_text:
        return file[name][:]
    data, offsets = file[f"{name}/bytes"][:].tobytes(), file[f"{name}/offsets"][:]
    return [data[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(offsets)]


@contextmanager
def _replacing(path: Path):
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_bytes(path: Path, content: bytes):
    with _replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_text(path: Path, text: str):
    _write_bytes(path, text.encode())


def _old_name(path: Path) -> Path:
    """A free name to keep something under: config.yaml.old-1."""
    candidates = (path.with_name(f"{path.name}.old-{i}") for i in itertools.count(1))
    return next(c for c in candidates if not c.exists())


def _flat(value, prefix="") -> dict:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else key).items()}


def _differences(stored: dict, now: dict) -> dict:
    old, new = _flat(stored), _flat(now)
    keys = [k for k in {**old, **new} if k not in MAY_DIFFER and old.get(k) != new.get(k)]
    return {key: (old.get(key), new.get(key)) for key in keys}
