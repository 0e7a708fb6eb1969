"""Wheels of a bundle: uv resolves for the compute nodes' Python, pip downloads."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bundle_check import HERE, BundleError

if TYPE_CHECKING:
    from hpc_saidpo.settings.whole import Settings

HOME = Path(__file__).resolve().parents[1]
GLIBC = 28  # wheels for glibc 2.28 (RHEL 8) and newer: torch itself runs with no older one
TORCH_INDEX = "https://download.pytorch.org/whl/"
AGAIN = "try again, or name an index that can be reached: PIP_INDEX_URL=https://..., PIP_FIND_LINKS=/folder"


@dataclass(frozen=True)
class Target:
    """The environment that the wheels are for.

    Attributes:
        python: its version, 3.12.
        cuda: the build of torch: cu130, cpu, ...; None: PyPI's.
        extras: of setup.py.
    """

    python: str
    cuda: str | None
    extras: tuple[str, ...]


def uv_command() -> list[str]:
    """The command line of `uv pip compile`, with the settings of pip.

    Raises:
        BundleError: there is no uv.
    """
    uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else [shutil.which("uv") or ""]
    if not uv[0]:
        raise BundleError("collecting wheels needs uv: pip install uv (or --no-wheels)")
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    settings = dict(re.findall(r"^(?:global|user|site|:env:)\.([\w-]+)=('.*')$", shown, re.MULTILINE))
    words = ["--index-strategy", "unsafe-best-match"]  # as pip does with several
    words += ["--no-index"] if settings.get("no-index") == "'true'" else []
    for name in ("index-url", "extra-index-url", "find-links", "constraint", "cert"):
        for value in ast.literal_eval(settings.get(name, "''")).split():
            words += [f"--{name}", value]
    return [*uv, "pip", "compile", "--quiet", "--no-python-downloads", "--no-header", "--no-annotate", *words]


def ships(config: Settings) -> list[str]:
    """The packages that ship the models named pkg://. A run needs no dependency of theirs."""
    paths = getattr(config.pool, "path", ())
    named = [config.policy.path, *([paths] if isinstance(paths, str) else paths)]
    if config.clusters.n > 1:
        named += [config.clusters.encoder, *[config.tags.model] * (config.tags.mode == "model")]
    modules = {n.removeprefix("pkg://").partition("/")[0] for n in named if n.startswith("pkg://")} - {"hpc_saidpo"}
    known = importlib.metadata.packages_distributions()
    return sorted({known.get(m, [m.replace("_", "-")])[0] for m in modules})


def collect_wheels(wheels: Path, target: Target, uv: list[str], config: Settings, missing: dict) -> str:
    """Fill wheels/. Returns the version of torch in it; "" when there is none."""
    wheels.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # From a copy: setuptools leaves build/ behind, and would pack files of an older build/ into the wheel.
        parts = ("hpc_saidpo", "conf", "setup.py", "pyproject.toml", "README.md", "LICENSE")
        subprocess.run(["cp", "-r", *(HOME / part for part in parts), scratch], check=True)
        done = _pip("wheel", "-w", str(wheels), scratch)
    if done.returncode != 0:
        missing["wheels"] = (_message(done), AGAIN)
        return ""
    project = next(wheels.glob("hpc_saidpo-*.whl"))
    machine = platform.machine()
    platforms = _platforms(machine)
    uv = [*uv, "--python-version", target.python, "--python-platform", f"{machine}-manylinux_2_{GLIBC}"]
    uv += ["--find-links", str(wheels), "-"]
    done, from_index = _lock(wheels, _required(project, target, config), target.cuda, uv)
    if done.returncode != 0:
        missing["wheels"] = (_message(done), AGAIN)
        return ""
    pins = (wheels / "lock.txt").read_text().split()
    for name in ships(config):
        done = _run([*uv, "--no-deps"], name)
        pins += (done.stdout.split() or [name]) if not any(p.startswith(f"{name}==") for p in pins) else []
    print(f"  wheels: {len(pins)} packages for Python {target.python}", flush=True)

    locked = dict(pin.split("==") for pin in pins if "==" in pin)
    pins = _without_existing(wheels, pins, locked, target.python, platforms)
    words = ["--only-binary=:all:", "--python-version", target.python, "--implementation", "cp"]
    words += [f"--platform={p}" for p in platforms] + ["--find-links", str(wheels), "-d", str(wheels)]
    if target.cuda and from_index:
        words += ["--extra-index-url", TORCH_INDEX + target.cuda]
    for first in range(0, len(pins), 16):  # pip keeps what it has only at its end
        _download(pins[first : first + 16], words, wheels, missing)
    if target.cuda and not locked["torch"].endswith(f"+{target.cuda}"):
        problem = (
            f"could not be downloaded from {TORCH_INDEX}{target.cuda}; wheels/ holds PyPI's torch {locked['torch']}"
        )
        missing[f"torch {target.cuda}"] = (problem, "download its wheel elsewhere into wheels/, and collect again")
    return locked["torch"]


def _platforms(machine: str) -> list[str]:
    """Tags of wheels that run on the compute nodes, the newest first."""
    old = (f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux"))
    return [*(f"manylinux_2_{n}_{machine}" for n in range(GLIBC, 4, -1)), *old]


def _required(project: Path, target: Target, config: Settings) -> list[str]:
    """The requirements: the project with the extras that were requested or that the configuration implies; an MPI."""
    known = next(iter(importlib.metadata.distributions(name="hpc_saidpo", path=[str(project)]))).metadata
    demo = config.pool.kind == "reasoning_gym" or any(
        path.endswith(".gguf") for path in (config.policy.path, config.tags.model)
    )
    gpu = config.clusters.backend == "gpu" or config.policy.attention.startswith("flash_attention")
    arrow = any(path.suffix in (".parquet", ".arrow") for path in project.parent.parent.rglob("*"))
    extras = {*target.extras, *["demo"] * demo, *["gpu"] * (gpu and "gpu12" not in target.extras), *["data"] * arrow}
    if unknown := extras - set(known.get_all("Provides-Extra")):
        raise BundleError(f"--extra {', '.join(unknown)}: there are {', '.join(known.get_all('Provides-Extra'))}")
    mpi = [] if "MPI4PY_LIBMPI" in os.environ else ["mpich"]
    return [f"hpc_saidpo[{','.join(sorted(extras))}] @ {project.as_uri()}", *mpi]


def _lock(
    wheels: Path, required: list[str], cuda: str | None, uv: list[str]
) -> tuple[subprocess.CompletedProcess, bool]:
    """Write wheels/lock.txt. Returns the finished process, and whether torch comes from its own index."""
    # Where torch's own index cannot be reached: its wheel from a folder that pip knows, else PyPI's build.
    pin = re.search(r"^torch==[\d.]+", (HOME / "tools/constraints-cpu.txt").read_text(), re.MULTILINE)[0]
    attempts = [(["--torch-backend", cuda], []), ([], [f"{pin}+{cuda}"])] if cuda else []
    for options, torch in [*attempts, ([], [])]:
        lock = ["--no-emit-package", "hpc-saidpo", "-o", str(wheels / "lock.txt"), *options]
        done = _run([*uv, *lock], "\n".join([*required, *torch]))
        if done.returncode == 0:
            break
    return done, bool(options)


def _without_existing(wheels: Path, pins: list[str], locked: dict, python: str, platforms: list[str]) -> list[str]:
    """The pins that wheels/ lacks. Wheels of an older collecting that no pin names are removed."""
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.utils import parse_wheel_filename

    version = tuple(int(n) for n in python.split("."))
    fitting = {*cpython_tags(version, platforms=platforms), *compatible_tags(version, platforms=platforms)}
    for path in wheels.glob("*.whl"):
        name, its, _, tags = parse_wheel_filename(path.name)
        if locked.get(name, str(its)) != str(its) or not tags & fitting:
            path.unlink()
        pins = [pin for pin in pins if not path.exists() or pin not in (name, f"{name}=={its}")]
    return pins


def _download(pins: list[str], words: Sequence[str], wheels: Path, missing: dict) -> None:
    """Download wheels; where there is none, build one that suits the nodes' Python, or report the package."""
    fits = "*.whl" if HERE in words else "*-none-any.whl"
    while pins:
        done = _pip("download", *words, *pins)
        if done.returncode == 0:
            return
        lost = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if lost is None or lost[1] not in pins:
            missing[" ".join(pins)] = (_message(done), AGAIN)
            return
        pins = [pin for pin in pins if pin != lost[1]]
        with tempfile.TemporaryDirectory() as scratch:
            done = _pip("wheel", "-w", scratch, lost[1])
            built = [shutil.copy(path, wheels) for path in Path(scratch).glob(fits)]
        if not built:
            why = "the one built here is for this Python only" if done.returncode == 0 else _message(done)
            remedy = f"pip wheel '{lost[1]}' --no-deps --no-build-isolation -w {wheels}; then collect again"
            missing[lost[1]] = (f"no wheel ({why})", f"build it once on a compute node, with torch there: {remedy}")


def _run(line: list[str], text: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(line, input=text, capture_output=True, text=True)


def _pip(command: str, *words: str) -> subprocess.CompletedProcess:
    options = ["--no-deps", "--retries", "1", "--timeout", "15", "--disable-pip-version-check", "--quiet"]
    return _run([sys.executable, "-m", "pip", command, *options, *words])


def _message(done: subprocess.CompletedProcess) -> str:
    """The error message of pip or uv, in one line."""
    said = [line for line in done.stderr.splitlines() if line.lower().startswith(("error: ", "  cause: "))]
    return " ".join(line.split(": ", 1)[1] for line in said[-2:]) or done.stderr.strip()[-200:]
