"""The place of a model or a dataset on disk, and a hash of its content. Imports no heavy library."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ..errors import RunError, is_transient, shown, words_of
from ..reading import open_file

# Files of which a folder with a tokenizer has at least one.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
Hashes = Callable[[Sequence[Path]], list[str]]
PACKAGE = "pkg://"  # pkg://some_package/inner/path: a file in an installed Python package


def locate(path: str, kind: Literal["model", "dataset"] = "model") -> str:
    """The file or folder of a path: pkg:// names an installed package, a Hub name is searched in the local cache.

    Raises:
        RunError: the package is not installed, or contains no such file.
    """
    if not path.startswith(PACKAGE):
        return path if Path(path).exists() else _in_hub_cache(path, kind)
    package, _, inner = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise RunError(f"{shown(path)}: the Python package {package!r} is not installed (extra demo: hpc_saidpo[demo])")
    file = Path(spec.submodule_search_locations[0]) / inner
    if ".." in file.parts or inner.startswith("/") or not file.exists():
        raise RunError(f"{shown(path)}: package {package!r} contains no {inner!r}")
    return str(file)


def hub_cache() -> str:
    """The folder in which models and datasets of the Hub are searched."""
    from huggingface_hub import constants  # imported where it is used: a quarter of a CPU-second

    return constants.HF_HUB_CACHE


def _in_hub_cache(name: str, kind: str) -> str:
    from huggingface_hub import errors, snapshot_download

    try:
        return snapshot_download(name, repo_type=kind, local_files_only=True)
    except (errors.HFValidationError, OSError):
        return name  # the attempt to load it raises the error


def is_gguf(path: str) -> bool:
    """Check whether a located path is a GGUF file, which `convert_gguf` must turn into a folder first."""
    return path.endswith(".gguf")


def sha256s(paths: Sequence[Path]) -> list[str]:
    """Return the SHA-256 of each file. Unchanged files are read once per process (`RunDir.sha256s`: once per run)."""
    return [_sha256(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


@functools.lru_cache
def _sha256(path: Path, *state: int) -> str:
    with open(open_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(folder: str, hashes: Hashes = sha256s) -> str:
    """A hash of a policy's configuration and weights files, 16 hex digits: equal policies have equal hashes.

    Args:
        hashes: returns the SHA-256 of each file.

    Raises:
        RunError: the folder does not exist.
    """
    try:
        content = sorted(Path(folder).iterdir())
        files = [p for p in content if p.suffix in (".safetensors", ".bin") or p.name == "config.json"]
        return hash_of([p for p in files if p.is_file()], hashes)
    except OSError as error:
        if is_transient(error):
            raise
        raise RunError(
            f"policy.path={shown(folder)}: no model could be loaded from there: {words_of(error)}"
        ) from error


def hash_of(files: Sequence[Path], hashes: Hashes = sha256s) -> str:
    """A hash of the names and contents of files, 16 hex digits. `hashes`: as in `fingerprint`."""
    lines = (f"{path.name} {value}\n" for path, value in zip(files, hashes(files), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
