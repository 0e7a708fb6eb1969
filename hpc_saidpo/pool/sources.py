"""What `pool.path` names -> the files to read: files, folders, patterns, saved datasets, datasets in the Hub cache."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from ..policy.locate import hub_cache, locate
from .read import format_of

_NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
_SPLIT = re.compile(r"(?:^|[/_.-])(train|test|validation|valid|val|dev|eval)(?=[/_.-])", re.IGNORECASE)
_LEARNED_FROM = "train"


def resolve(paths: Sequence[str], patterns: Sequence[str] = ()) -> list[Path]:
    """The files that these paths mean, in a fixed order, each once.

    Args:
        paths: files, folders, patterns, folders of `save_to_disk`, names of datasets in the local Hub cache, pkg://...
        patterns: which files of a folder or dataset; () for all, when they are of one split.

    Raises:
        RunError: there is no such file, dataset or match; or the choice among several splits or formats is open.
    """
    found = [file for path in paths for file in _files(path, patterns)]
    return list(dict.fromkeys(found))


def _files(path: str, patterns: Sequence[str]) -> list[Path]:
    if glob.has_magic(path) and not os.path.exists(path):
        found = sorted(Path(p) for p in glob.glob(path, recursive=True) if os.path.isfile(p))
        if not found:
            raise RunError(f"pool.path={path}: no file fits this pattern")
        return found
    place = Path(located(path))
    if not place.exists():
        raise RunError(f"pool.path={path}: {_absent(path)}")
    if place.is_file():
        return [place]
    return _chosen(place, patterns) if patterns else _all(place)


def located(path: str) -> str:
    """Where a path, a pkg:// name or a Hub dataset lies; the path itself when it lies nowhere."""
    return locate(path, "dataset")


def _absent(path: str) -> str:
    if path.count("/") == 1 and not path.startswith((".", "/")) and not format_of(Path(path)):
        return f"no such file, and no dataset of that name in the local Hub cache ({hub_cache()})"
    return "no such file"


def _chosen(folder: Path, patterns: Sequence[str]) -> list[Path]:
    found = [p for pattern in patterns for p in sorted(folder.glob(pattern)) if p.is_file()]
    if not found:
        there = [str(p.relative_to(folder)) for p in _data_files(folder)]
        listed = ", ".join(there[:8]) + (", ..." if len(there) > 8 else "") or "no data files"
        raise RunError(f"pool.files={' '.join(patterns)} fits nothing in {folder}: there are {listed}")
    return found


def _all(folder: Path) -> list[Path]:
    """Every data file of a folder, where that can mean only one thing."""
    if (folder / "state.json").exists():
        return _saved(folder)
    if (folder / "dataset_dict.json").exists():
        splits = sorted(p.parent for p in folder.glob("*/state.json"))
        if len(splits) == 1:
            return _saved(splits[0])
        listed = ", ".join(p.name for p in splits)
        raise RunError(f"{folder} has the splits {listed}: choose one: pool.files='{_LEARNED_FROM}/*.arrow'")
    found = _data_files(folder)
    if not found:
        raise RunError(f"{folder} holds no file of questions (JSON lines, JSON, CSV, Parquet, Arrow)")
    names = [str(p.relative_to(folder)) for p in found]
    splits = {m[1].lower() for name in names for m in [_SPLIT.search(name)] if m}
    if len(splits) > 1:
        raise RunError(
            f"{folder} has files of the splits {', '.join(sorted(splits))}: choose those to learn from, for example "
            f"pool.files='**/*{_LEARNED_FROM}*'"
        )
    kinds = {format_of(p) for p in found}
    if len(kinds) > 1:
        raise RunError(
            f"{folder} has files of several formats ({', '.join(sorted(kinds))}): choose, for example "
            f"pool.files='**/*{min(kinds)}'"
        )
    return found


def _data_files(folder: Path) -> list[Path]:
    inside = ((p, p.relative_to(folder).parts) for p in folder.rglob("*"))
    return sorted(
        p
        for p, parts in inside
        if p.is_file() and format_of(p) and p.name not in _NO_DATA and not any(part.startswith(".") for part in parts)
    )


def _saved(folder: Path) -> list[Path]:
    """The files of a dataset that `save_to_disk` wrote, in their order."""
    try:
        listed = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
        found = [folder / item["filename"] for item in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}/state.json is not what save_to_disk writes ({error!r}): save it again") from error
    lost = [path.name for path in found if not path.is_file()]
    if lost:
        raise RunError(f"{folder} lacks {', '.join(lost[:3])} of its {len(found)} files: copy it again")
    return found


def labels(files: Sequence[Path]) -> list[str]:
    """What the ids of questions without one begin with: the file's name, with as many folders as tell them apart."""
    if len(files) == 1:
        return [_stem(files[0])]
    common = os.path.commonpath([p.parent for p in files])
    return [str(Path(os.path.relpath(p, common)).with_name(_stem(p))) for p in files]


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem
