"""The folder of one stage: tables, chunks, JSON and model files, and the manifest that says they are all there."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np

from ..errors import RunError
from ..parallel.world import World
from ..records import STAGES
from ..table import Columns
from . import files, tables, texts
from .layout import folder_of, iterations_of
from .tables import Damaged

SHARD_ROWS = 32_768
VISIBLE_AFTER_S = 60.0  # how late a file may show on another node of a network file system
_CHUNK, _SHARD = "chunk-{:06d}", "shard-{:06d}-{:06d}"
_PIECE = re.compile(r"(?:chunk|shard)-(\d{6,})(?:-(\d{6,}))?")


class Stage:
    """The folder of one stage. Not collective; one writer per file.

    Args:
        facts: where what it holds comes from; written into the attributes of every table.
    """

    def __init__(self, path: Path, facts: Mapping | None = None):
        self.path, self.facts = Path(path), dict(facts or {})

    @property
    def done(self) -> bool:
        return (self.path / "DONE").exists()

    def prepare(self) -> None:
        files.make_folder(self.path)

    def mark_done(self) -> None:
        """Write the manifest: from now on the stage counts, and its files are known by size and SHA-256."""
        listed = {
            str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
            for path in self.contents()
        }
        manifest = {"schema_version": tables.SCHEMA_VERSION, "files": listed, "sha256": _hash(listed)}
        files.write_text(self.path / "DONE", json.dumps(manifest, indent=1))

    def contents(self) -> list[Path]:
        """The stage's files, without DONE and what is not finished or was set aside."""

        def counts(path):
            parts = path.relative_to(self.path).parts
            hidden = any(part.startswith(".") or ".old-" in part or ".damaged-" in part for part in parts)
            return path.is_file() and not hidden and path.name != "DONE"

        return sorted(path for path in self.path.rglob("*") if counts(path))

    def manifest(self) -> dict[str, dict]:
        """File name -> bytes and sha256, as they were when the stage was done.

        Raises:
            Damaged: DONE cannot be read.
            RunError: the stage was made by a version with another layout.
        """
        path = self.path / "DONE"
        try:
            manifest = json.loads(path.read_text())
            version, listed = manifest["schema_version"], manifest["files"]
            if manifest["sha256"] != _hash(listed):
                raise ValueError("its own SHA-256 does not fit")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Damaged(path, f"is not readable ({error})") from error
        if version != tables.SCHEMA_VERSION:
            raise RunError(
                f"{path}: has layout {version}, this version reads {tables.SCHEMA_VERSION}: go on with the version "
                "that made the run, or start a new one with run.name=..."
            )
        return listed

    def check_complete(self) -> None:
        """Make sure that a finished stage has its files, by name and size.

        Raises:
            Damaged: one is missing, or has another size.
        """
        for name, known in self.manifest().items():
            path = self.path / name
            if not path.is_file():
                raise Damaged(path, "is missing")
            if path.stat().st_size != known["bytes"]:
                raise Damaged(path, f"has {path.stat().st_size} bytes where it was finished with {known['bytes']}")

    def write(self, name: str, table: Columns, **facts) -> None:
        """Write a table as <name>.h5: it appears whole or not at all."""
        files.write_bytes(self.path / f"{name}.h5", tables.image(table, {**self.facts, **facts}))

    def has(self, name: str) -> bool:
        """Whether `write` wrote a table of this name."""
        return (self.path / f"{name}.h5").exists()

    def read(self, name: str, table: type[Columns]) -> Columns:
        """Read a table that `write` wrote.

        Raises:
            Damaged: the file is missing, damaged, or not such a table.
        """
        return tables.read(self.path / f"{name}.h5", table, self.check_attributes)

    def check_attributes(self, path: Path, attributes: Mapping) -> None:
        """Make sure that a table is of this stage, and holds the chunks of its name.

        Raises:
            Damaged: it does not.
        """
        for key in ("stage", "iteration"):
            if key in self.facts and attributes.get(key) != self.facts[key]:
                raise Damaged(path, f"belongs to {key} {attributes.get(key)}, not {self.facts[key]}")
        named = _PIECE.fullmatch(path.stem)
        held = (attributes.get("first_chunk"), attributes.get("last_chunk"))
        if named and held != (int(named[1]), int(named[2] or named[1])):
            raise Damaged(path, f"holds the chunks {held[0]} to {held[1]}, not those of its name")

    def write_chunk(self, index: int, table: Columns) -> None:
        """Write chunk `index` of a stage whose work is spread over ranks."""
        self.write(_CHUNK.format(index), table, first_chunk=index, last_chunk=index)

    def finished_chunks(self) -> set[int]:
        """The chunks that are on disk already, alone or in a shard."""
        return {index for first, last, _ in self._pieces() for index in range(first, last + 1)}

    def shards(self, chunk_rows: Sequence[int]) -> list[range]:
        """How the chunks of a finished stage are put together: the same for any number of ranks.

        Args:
            chunk_rows: rows of each chunk.

        Returns:
            Neighbouring chunks that have at most `SHARD_ROWS` rows together; or one that has more alone.
        """
        starts, rows = [], 0
        for index, own in enumerate(chunk_rows):
            if not starts or rows + own > SHARD_ROWS:
                starts.append(index)
                rows = 0
            rows += own
        return [range(a, b) for a, b in itertools.pairwise([*starts, len(chunk_rows)])]

    def seal(self, chunks: range, table: type[Columns]) -> None:
        """Put chunks into one shard, sorted; then, once it has been read back, remove their own files.

        A stage of thousands of chunks is a handful of files this way: clusters limit files as they do bytes.
        """
        name = _SHARD.format(chunks[0], chunks[-1])
        if not (self.path / f"{name}.h5").exists():
            parts = []
            for index in chunks:
                _wait_for(self.path / f"{_CHUNK.format(index)}.h5")
                parts.append(self.read(_CHUNK.format(index), table))
            whole = table.concat(parts).sorted()
            self.write(name, whole, first_chunk=chunks[0], last_chunk=chunks[-1])
            if not _same(self.read(name, table), whole):
                raise RunError(f"{self.path / name}.h5 does not hold what was written to it: mend the file system")
        for index in chunks:
            (self.path / f"{_CHUNK.format(index)}.h5").unlink(missing_ok=True)

    def await_chunks(self, indices: Iterable[int]) -> None:
        """Wait until chunks that other ranks have written show here."""
        for index in indices:
            _wait_for(self.path / f"{_CHUNK.format(index)}.h5")

    def read_chunks(self, table: type[Columns], rows: np.ndarray | None = None) -> Columns:
        """All chunks as one table: numbers in memory, texts left on disk until they are asked for.

        Args:
            rows: which of their rows, in which order; None for all.

        Raises:
            Damaged: a file is missing, damaged, or holds other chunks than its name says.
        """
        return texts.read_many([path for *_, path in self._pieces()], table, self.check_attributes, rows)

    def _pieces(self) -> list[tuple[int, int, Path]]:
        """(first chunk, last chunk, file) of every shard, and of every chunk that is in none."""
        paths = [self.path / name for name in self.manifest()] if self.done else self.path.glob("*.h5")
        named = [(_PIECE.fullmatch(path.stem), path) for path in paths]
        found = [(int(m[1]), int(m[2] or m[1]), path) for m, path in named if m]
        sealed = {i for first, last, path in found if path.stem.startswith("shard") for i in range(first, last + 1)}
        return sorted(p for p in found if p[2].stem.startswith("shard") or p[0] not in sealed)

    def write_json(self, name: str, value) -> None:
        files.write_text(self.path / f"{name}.json", json.dumps(value, indent=1))

    def read_json(self, name: str):
        """Raises:
        Damaged: the file is missing or not JSON.
        """
        path = self.path / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise Damaged(path, f"is not readable as JSON ({error})") from error

    def append_lines(self, name: str, lines: Iterable[str]) -> None:
        """Add lines to <name>.jsonl, in a stage that appears whole or not at all (`RunDir.shared`)."""
        path = self.path / f"{name}.jsonl"
        with files.disk_errors(path), open(path, "a", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def write_folder(self, name: str, save: Callable[[Path], None], world: World | None = None) -> None:
        """Let `save` fill a folder that appears whole or not at all; one that is there keeps under another name.

        Args:
            world: collective: every rank's `save` fills it. None: this rank alone.
        """
        files.fill_folder(self.path / name, save, world or World())

    def remove(self, name: str) -> None:
        """Remove a file or folder that the stage needed only while it was under way; half of it is never seen."""
        path = self.path / name
        if path.is_dir():
            files.remove_folder(path)
        else:
            path.unlink(missing_ok=True)


def stages_of(run: Path) -> list[Stage]:
    """The stages that a run folder holds, finished or not, in the order of their work; each knows its place."""
    found = [("base", path) for path in sorted(run.glob("base/evaluate/*"))]
    for t, folder in iterations_of(run):
        found += [(t, path) for path in [*(folder / name for name in STAGES), *sorted(folder.glob("evaluate/*"))]]
    return [
        Stage(path, {"iteration": -1 if t == "base" else t, "stage": str(path.relative_to(run / folder_of(t)))})
        for t, path in found
        if path.is_dir() and not files.is_temporary(path)
    ]


def _hash(listed: dict) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()


def _wait_for(path: Path):
    """A network file system may show another node's file late; `tables.opened` names one that never comes."""
    deadline = time.monotonic() + VISIBLE_AFTER_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)


def _same(a: Columns, b: Columns) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
