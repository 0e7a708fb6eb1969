"""Where a model or a dataset is on disk, and a hash of its content. Imports no torch."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HFValidationError

from ..errors import RunError

PACKAGE = "pkg://"  # pkg://some_package/inner/path: a file that an installed Python package ships


def locate(path: str, kind: Literal["model", "dataset"] = "model") -> str:
    """A path as a file or folder: pkg:// is looked up in the installed package, a Hub name in the local cache.

    Raises:
        RunError: the package is not installed, or holds no such file.
    """
    if not path.startswith(PACKAGE):
        return path if Path(path).exists() else _in_hub_cache(path, kind)
    package, _, inner = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RunError(f"{path}: the Python package {package!r} is not installed (extra demo: hpc_saidpo[demo])")
    found = Path(spec.submodule_search_locations[0]) / inner
    if not found.exists():
        raise RunError(f"{path}: package {package!r} holds no {inner!r}")
    return str(found)


def hub_cache() -> str:
    """Where models and datasets named as on the Hub are looked for."""
    return HF_HUB_CACHE


def _in_hub_cache(name: str, kind: str) -> str:
    try:
        return snapshot_download(name, repo_type=kind, local_files_only=True)
    except (HFValidationError, OSError):
        return name  # loading it will say what is wrong


def is_gguf(path: str) -> bool:
    """Whether a located path is a GGUF file, which `convert_gguf` must turn into a folder first."""
    return path.endswith(".gguf")


def fingerprint(folder: str) -> str:
    """What makes a policy this policy: a hash of its configuration and weights files, 16 hex digits.

    Raises:
        RunError: there is no such folder.
    """
    try:
        content = sorted(Path(folder).iterdir())
        found = [p for p in content if p.suffix in (".safetensors", ".bin") or p.name == "config.json"]
        return hash_of(found)
    except OSError as error:
        raise RunError(f"policy.path={folder}: no model could be loaded from there: {error}") from error


def hash_of(files: Iterable[Path]) -> str:
    """A hash of files' names and contents, 16 hex digits; files that have not changed are read once."""
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for path, *_ in files:
        with open(path, "rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()[:16]
