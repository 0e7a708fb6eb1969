"""The folder of one stage: tables, chunks, JSON and model files, and the manifest that lists them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError, shown, words_of
from ..names import require_name
from ..parallel.world import World
from ..reading import parse_json, read_text
from ..records import STAGES
from ..table import Columns
from . import disk, files, stored, tables, temporaries
from .layout import folder_of, iterations_of
from .manifest import DONE, Facts, read_manifest, text_of
from .tables import C, Damaged

SHARD_ROWS = 32_768
_CHUNK, _SHARD = "chunk-{:06d}", "shard-{:06d}-{:06d}"
_DISCARDED = "DISCARDED"  # lists the files and folders that were removed after the stage was finished
_ROUND = "round-"
_PIECE = re.compile(r"(?:chunk|shard)-([0-9]{6,15})(?:-([0-9]{6,15}))?")


class Stage:
    """The folder of one stage. Not collective; one writer per file.

    Args:
        facts: origin of its content, written to the attributes of every table.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any] | None = None):
        self.path, self.facts = Path(path), dict(facts or {})

    @property
    def done(self) -> bool:
        """Whether the stage is finished."""
        return disk.exists(self.path / DONE)

    def prepare(self) -> None:
        """Create the folder."""
        files.make_folder(self.path)

    def mark_done(self) -> None:
        """Write the manifest with size and SHA-256 of every file: from now on the stage is finished."""
        listed: dict[str, Facts] = {
            str(path.relative_to(self.path)): {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
            for path in self.contents()
        }
        files.write_text(self.path / DONE, text_of(listed))

    def contents(self) -> list[Path]:
        """Return the stage's files, without DONE, unfinished files and files that were set aside."""

        def counts(path: Path) -> bool:
            parts = path.relative_to(self.path).parts
            hidden = any(part.startswith(".") or ".old-" in part or ".damaged-" in part for part in parts)
            return path.is_file() and not hidden and path.name not in (DONE, _DISCARDED)

        return sorted(path for path in self.path.rglob("*") if counts(path))

    def manifest(self, readable: tuple[int, ...] = tables.READABLE) -> dict[str, Facts]:
        """Return {file name: bytes and sha256} from the time when the stage was finished.

        Args:
            readable: layouts (schema_version) that the caller can use.

        Raises:
            Damaged: DONE cannot be read.
            RunError: a version made the stage whose layout this version cannot read.
        """
        version, listed = read_manifest(self.path)
        tables.check_layout(self.path / DONE, version, readable)
        return listed

    @property
    def layout(self) -> int:
        """The layout (schema_version) of a finished stage. Raises Damaged: DONE cannot be read."""
        return read_manifest(self.path)[0]

    def check_complete(self, readable: tuple[int, ...] = tables.READABLE) -> None:
        """Make sure that a finished stage still has its files, by name and size, but for discarded ones.

        Raises:
            Damaged: a file is missing or has another size.
            RunError: its layout is not one of the readable ones.
        """
        discarded = self.discarded()
        for name, known in self.manifest(readable).items():
            path = self.path / name
            if Path(name).parts[0] in discarded:
                continue
            if not disk.exists(path):
                raise Damaged(path, "is missing")
            n_bytes = disk.persist(path, path.stat).st_size
            if n_bytes != known["bytes"]:
                raise Damaged(path, f"has {n_bytes} bytes where it was finished with {known['bytes']}")

    def write(self, name: str, table: Columns, **facts: Any) -> None:
        """Write a table as <name>.h5. The file appears complete or not at all.

        Args:
            facts: further attributes of the table.
        """
        files.write_bytes(self.path / f"{name}.h5", tables.encode(table, {**self.facts, **facts}))

    def has(self, name: str) -> bool:
        """Whether there is a table of this name."""
        return disk.exists(self.path / f"{name}.h5")

    def read(self, name: str, table: type[C]) -> C:
        """Read a table that `write` wrote.

        Raises:
            Damaged: the file is missing, damaged, or not such a table.
        """
        path = self.path / f"{name}.h5"
        return disk.persist(path, lambda: tables.read(path, table, self.check_attributes))

    def check_attributes(self, path: Path, attributes: Mapping) -> None:
        """Make sure that a table belongs to this stage and holds the chunks in its name.

        Raises:
            Damaged: it belongs to another stage or holds other chunks.
        """
        for key in ("stage", "iteration"):
            if key in self.facts and attributes.get(key) != self.facts[key]:
                raise Damaged(path, f"belongs to {key} {attributes.get(key)}, not {self.facts[key]}")
        named = _PIECE.fullmatch(path.stem)
        held = (attributes.get("first_chunk"), attributes.get("last_chunk"))
        if named and held != (int(named[1]), int(named[2] or named[1])):
            raise Damaged(path, f"holds the chunks {held[0]} to {held[1]}, not those of its name")

    def write_chunk(self, index: int, table: Columns) -> None:
        """Write chunk `index` of a stage whose work is distributed over the ranks."""
        self.write(_CHUNK.format(index), table, first_chunk=index, last_chunk=index)

    def finished_chunks(self) -> set[int]:
        """Return the chunks that are on disk, as single files or in shards."""
        return {index for first, last, _ in self._pieces() for index in range(first, last + 1)}

    def shards(self, chunk_rows: Sequence[int]) -> list[range]:
        """Return the chunks of each shard of a finished stage. They do not depend on the number of ranks.

        Args:
            chunk_rows: rows of each chunk.

        Returns:
            Neighbouring chunks with at most `SHARD_ROWS` rows together, or one chunk with more.
        """
        starts, rows = [], 0
        for index, n_rows in enumerate(chunk_rows):
            if not starts or rows + n_rows > SHARD_ROWS:
                starts.append(index)
                rows = 0
            rows += n_rows
        return [range(a, b) for a, b in itertools.pairwise([*starts, len(chunk_rows)])]

    def seal(self, chunks: range, table: type[Columns]) -> None:
        """Write chunks into one sorted shard, read it back, then remove the files of the chunks.

        A stage of thousands of chunks becomes a few files: clusters limit the number of files as well as their size.
        """
        name = _SHARD.format(chunks[0], chunks[-1])
        if not self.has(name):
            parts = []
            for index in chunks:
                disk.wait_for(self.path / f"{_CHUNK.format(index)}.h5")
                parts.append(self.read(_CHUNK.format(index), table))
            whole = table.concat(parts).sorted()
            self.write(name, whole, first_chunk=chunks[0], last_chunk=chunks[-1])
            if not self.read(name, table).equals(whole):
                raise RunError(
                    f"{shown(self.path / name)}.h5 does not hold the data that was written to it: repair the disk"
                )
        for index in chunks:
            files.remove_file(self.path / f"{_CHUNK.format(index)}.h5")

    def await_chunks(self, indices: Iterable[int]) -> None:
        """Wait until chunks of other ranks are visible on this node."""
        for index in indices:
            disk.wait_for(self.path / f"{_CHUNK.format(index)}.h5")

    def read_chunks(self, table: type[C], rows: np.ndarray | None = None) -> C:
        """Read all chunks as one table: numbers to memory, texts and token ids stay on disk until they are used.

        Args:
            rows: rows to return, in this order; None for all.

        Raises:
            Damaged: a file is missing, damaged, or holds other chunks than those in its name.
        """
        return stored.read_many([path for *_, path in self._pieces()], table, self.check_attributes, rows)

    def _pieces(self) -> list[tuple[int, int, Path]]:
        """Return first chunk, last chunk and file of every shard, and of every chunk outside the shards."""
        names = self.manifest() if self.done else disk.names_in(self.path)
        paths = [self.path / name for name in names if name.endswith(".h5")]
        named = [(_PIECE.fullmatch(path.stem), path) for path in paths]
        pieces = [(int(m[1]), int(m[2] or m[1]), path) for m, path in named if m]
        sealed = {i for first, last, path in pieces if path.stem.startswith("shard") for i in range(first, last + 1)}
        return sorted(p for p in pieces if p[2].stem.startswith("shard") or p[0] not in sealed)

    def round(self, number: int) -> Stage:
        """Return one round of a stage that is made in rounds, each a folder until all are merged."""
        return Stage(self.path / f"{_ROUND}{number:04}", self.facts)

    def rounds(self) -> list[Stage]:
        """Return the rounds that are there and not merged yet."""
        names = [] if self.done else [name for name in disk.names_in(self.path) if name.startswith(_ROUND)]
        merged = self.finished_chunks() if names else set()
        return [self.round(n) for n in sorted(int(name.removeprefix(_ROUND)) for name in names) if n not in merged]

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as <name>.json."""
        files.write_text(self.path / f"{name}.json", json.dumps(value, indent=1))

    def read_json(self, name: str, kind: type = object) -> Any:
        """Read a value that `write_json` wrote, of this type.

        Raises:
            Damaged: the file is missing, not JSON, or holds another type.
        """
        path = self.path / f"{name}.json"
        try:
            value = parse_json(disk.persist(path, lambda: read_text(path)))
        except (OSError, ValueError) as error:
            raise Damaged(path, f"is not readable as JSON ({words_of(error)})") from error
        if not isinstance(value, kind):
            raise Damaged(path, f"holds a {type(value).__name__} where there should be a {kind.__name__}")
        return value

    def append_lines(self, name: str, lines: Iterable[str]) -> None:
        """Append lines to <name>.jsonl, in a stage whose folder appears only when it is finished (`RunDir.shared`)."""
        files.append(self.path / f"{name}.jsonl", "".join(f"{line}\n" for line in lines).encode())

    def write_folder(self, name: str, save: Callable[[Path], object], world: World | None = None) -> None:
        """Let `save` fill a folder that appears complete or not at all. An existing folder is kept under another name.

        Args:
            world: every rank calls `save`; collective. None: only this rank.
        """
        files.fill_folder(self.path / name, save, world or World())

    def remove(self, name: str) -> None:
        """Remove a temporary file or folder of the stage, in one step."""
        path = self.path / name
        if path.is_dir() and not path.is_symlink():
            files.remove_folder(path)
        else:
            files.remove_file(path)

    def discard(self, name: str) -> None:
        """Remove a file or folder of a finished stage for good. The stage remains finished, and remembers it."""
        discarded = sorted({*self.discarded(), name})
        files.write_text(self.path / _DISCARDED, "".join(f"{name}\n" for name in discarded))
        self.remove(name)

    def discarded(self) -> list[str]:
        """Return the names of the files and folders that `discard` has removed.

        Raises:
            Damaged: the file with the names cannot be read, or holds something else.
        """
        path = self.path / _DISCARDED
        try:
            text = disk.persist(path, lambda: read_text(path)) if disk.exists(path) else ""
            return [require_name(name) for name in text.splitlines()]
        except (OSError, ValueError) as error:
            raise Damaged(path, f"is not readable ({words_of(error)})") from error


def stages_of(run: Path) -> list[Stage]:
    """Return the stages in a run folder, finished or not, in the order of their work."""
    places = [("base", path) for path in sorted(run.glob("base/evaluate/*"))]
    for t, folder in iterations_of(run):
        places += [(t, path) for path in [*(folder / name for name in STAGES), *sorted(folder.glob("evaluate/*"))]]
    return [
        Stage(path, {"iteration": -1 if t == "base" else t, "stage": str(path.relative_to(run / folder_of(t)))})
        for t, path in places
        if path.is_dir() and not temporaries.is_temporary(path)
    ]
