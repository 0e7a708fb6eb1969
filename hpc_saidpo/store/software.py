"""The software of a run's starts (env.json): versions of everything that grades, generates, trains or clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..reading import parse_json, read_text

SHOWN = 3  # names that a message lists
# The use of each package by a run. Packages without a use change no figure.
USE_OF = {
    "math-verify": "grades", "sympy": "grades", "latex2sympy2-extended": "grades", "antlr4-python3-runtime": "grades",
    "mpmath": "grades", "reasoning-gym": "grades",
    "torch": "generates", "transformers": "generates", "tokenizers": "generates", "jinja2": "generates",
    "vllm": "generates", "flash-attn": "generates", "flash-attn-3": "generates", "gguf": "generates",
    "peft": "trains", "bitsandbytes": "trains",
    "sentence-transformers": "clusters", "scikit-learn": "clusters", "numpy": "clusters", "scipy": "clusters",
    "cuml-cu12": "clusters", "cuml-cu13": "clusters", "cupy-cuda12x": "clusters", "cupy-cuda13x": "clusters",
    "mpi4py": "", "h5py": "", "hdf5plugin": "", "safetensors": "", "pydantic": "", "hydra-core": "", "omegaconf": "",
}  # fmt: skip
# Further facts of a start that change figures: the words for them, and their use.
FACTS = {
    "hpc_saidpo": ("versions of hpc_saidpo", "grades and generates"),
    "commit": ("commits of hpc_saidpo", "grades and generates"),
    "python": ("versions of Python", "runs the grader"),
    "cuda": ("versions of CUDA", "generates"),
    "gpus": ("GPUs", "generates"),
}


def installed() -> dict[str, str | None]:
    """Return the version of each package in USE_OF; None where it is not installed."""
    return {name: _version(name) for name in USE_OF}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def read_starts(run: Path) -> list[dict[str, Any]]:
    """Return the facts of each start of a run, oldest first; [] where env.json is missing or damaged."""
    try:
        starts = parse_json(read_text(run / "env.json"))
    except (OSError, ValueError):
        return []
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def differences(starts_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a line for everything that grades, generates, trains or clusters and differs between some runs.

    A fact that an earlier version of this program did not record is unknown, and differs from nothing.

    Args:
        starts_of: starts of each run (`read_starts`), by the name of the run.
    """
    lines = []
    packages = {name: (f"versions of {name}", use) for name, use in USE_OF.items() if use}
    for name, (words, use) in {**packages, **FACTS}.items():
        runs_of: dict[str, list[str]] = {}
        for run, starts in starts_of.items():
            for value in dict.fromkeys(_value(start, name) for start in starts):
                if value:
                    runs_of.setdefault(value, []).append(run)
        if len(runs_of) > 1:
            listed = "; ".join(f"{value} in {_some(runs)}" for value, runs in sorted(runs_of.items()))
            lines.append(f"figures come from different {words} ({use}): {listed}")
    return lines


def _value(start: Mapping[str, Any], name: str) -> str:
    """A fact of a start, as a text; "" where it was not recorded."""
    packages = start.get("packages")
    if isinstance(packages, dict) and name in packages:
        return str(packages[name] or "none")
    value = start.get(name)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) if value else ""


def _some(runs: Sequence[str]) -> str:
    return ", ".join(runs[:SHOWN]) + (f" and {len(runs) - SHOWN} more" if len(runs) > SHOWN else "")
