"""pool.path -> the files to read: files, folders, patterns, saved datasets, datasets in the Hub cache."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError, shown, words_of
from ..names import below
from ..policy.locate import hub_cache, locate
from ..reading import parse_json, read_text
from .read import format_of
from .text_files import name_some

_NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
_SPLIT = re.compile(r"(?:^|[/_.-])(train|test|validation|valid|val|dev|eval)(?=[/_.-])", re.IGNORECASE)
_TRAIN = "train"


def resolve(paths: Sequence[str], patterns: Sequence[str] = ()) -> list[Path]:
    """Return the files that these paths name, in a fixed order, each once.

    Args:
        paths: files, folders, patterns, folders of `save_to_disk`, names of datasets in the local Hub cache, pkg://...
        patterns: patterns for the files of a folder or dataset; () for all files, which must be of one split.

    Raises:
        RunError: no such file or dataset; no file fits a pattern; several splits or formats without a choice.
    """
    files = [file for path in paths for file in _files(path, patterns)]
    return list(dict.fromkeys(files))


def _files(path: str, patterns: Sequence[str]) -> list[Path]:
    if glob.has_magic(path) and not os.path.exists(path):
        files = sorted(Path(p) for p in glob.glob(path, recursive=True) if os.path.isfile(p))
        if not files:
            raise RunError(f"pool.path={shown(path)}: no file fits this pattern")
        return files
    place = Path(locate_dataset(path))
    if not place.exists():
        raise RunError(f"pool.path={shown(path)}: {_describe_absence(path)}")
    if place.is_file():
        return [place]
    return _select(place, patterns) if patterns else _select_all(place)


def locate_dataset(path: str) -> str:
    """Return the place of a path, a pkg:// name or a Hub dataset; the path itself when there is none."""
    return locate(path, "dataset")


def _describe_absence(path: str) -> str:
    if path.count("/") == 1 and not path.startswith((".", "/")) and not format_of(Path(path)):
        return f"no such file, and no dataset of that name in the local Hub cache ({hub_cache()})"
    return "no such file"


def _select(folder: Path, patterns: Sequence[str]) -> list[Path]:
    files = [p for pattern in patterns for p in sorted(folder.glob(pattern)) if p.is_file()]
    if not files:
        present = [str(p.relative_to(folder)) for p in _data_files(folder)]
        listed = name_some(present) or "no data files"
        raise RunError(f"pool.files={' '.join(patterns)} fits nothing in {shown(folder)}: there are {listed}")
    return files


def _select_all(folder: Path) -> list[Path]:
    """Return every data file of a folder; the files must be of one split and one format."""
    if (folder / "state.json").exists():
        return _saved_files(folder)
    if (folder / "dataset_dict.json").exists():
        splits = sorted(p.parent for p in folder.glob("*/state.json"))
        if len(splits) == 1:
            return _saved_files(splits[0])
        listed = name_some([p.name for p in splits])
        raise RunError(f"{shown(folder)} has the splits {listed}: choose one: pool.files='{_TRAIN}/*.arrow'")
    files = _data_files(folder)
    if not files:
        raise RunError(f"{shown(folder)} holds no file of questions (JSON lines, JSON, CSV, Parquet, Arrow)")
    names = [str(p.relative_to(folder)) for p in files]
    split_names = {m[1].lower() for name in names for m in [_SPLIT.search(name)] if m}
    if len(split_names) > 1:
        raise RunError(
            f"{shown(folder)} has files of the splits {', '.join(sorted(split_names))}: choose the files to learn "
            f"from, for example pool.files='**/*{_TRAIN}*'"
        )
    formats = {format_of(p) for p in files}
    if len(formats) > 1:
        raise RunError(
            f"{shown(folder)} has files of several formats ({', '.join(sorted(formats))}): choose, for example "
            f"pool.files='**/*{min(formats)}'"
        )
    return files


def _data_files(folder: Path) -> list[Path]:
    inside = ((p, p.relative_to(folder).parts) for p in folder.rglob("*"))
    return sorted(
        p
        for p, parts in inside
        if p.is_file() and format_of(p) and p.name not in _NO_DATA and not any(part.startswith(".") for part in parts)
    )


def _saved_files(folder: Path) -> list[Path]:
    """Return the files of a dataset that `save_to_disk` wrote, in their order."""
    try:
        listed = parse_json(read_text(folder / "state.json"))["_data_files"]
        files = [below(folder, item["filename"]) for item in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{shown(folder)}/state.json damaged, or not written by save_to_disk ({words_of(error)}): save it again"
        ) from error
    lost = [path.name for path in files if not path.is_file()]
    if lost:
        raise RunError(f"{shown(folder)} lacks {name_some(lost[:3])} of its {len(files)} files: copy it again")
    return files


def labels(files: Sequence[Path]) -> list[str]:
    """Return the start of the ids of questions without an id: the file's path below the common folder, no suffix."""
    if len(files) == 1:
        return [_stem(files[0])]
    common = os.path.commonpath([p.parent for p in files])
    return [str(Path(os.path.relpath(p, common)).with_name(_stem(p))) for p in files]


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem
