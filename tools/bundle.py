"""What tools/bundle.sh does; its usage is there. Only collecting imports more than the standard library."""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpc_saidpo.cli import compose
from hpc_saidpo.doctor import inputs

HOME = Path(__file__).resolve().parent.parent
MANIFEST = "MANIFEST.json"
BUNDLE = "{BUNDLE}"  # in inputs/overrides.txt: the folder, wherever it lies
PARTS = ("wheels", "huggingface/hub", "inputs")  # beside hub/, HF_HOME fills with caches and locks of its users
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
GLIBC = 28  # wheels for glibc 2.28 (RHEL 8) and newer: torch itself runs with no older one
TORCH_INDEX = "https://download.pytorch.org/whl/"
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
DATA_FILES = tuple(f"*.{form}{gz}" for form in ("jsonl", "ndjson", "json", "csv", "tsv") for gz in ("", ".gz"))
DATA_FILES += ("*.parquet", "*.arrow")
DATASET_FILES = ("state.json", "*/state.json", "dataset_dict.json")  # what says which files a saved dataset has
# The same weights in other forms, and what a trainer leaves beside them.
DUPLICATES = ("consolidated*", "original/*", "onnx/*", "openvino/*", "checkpoint-*/*")


class BundleError(Exception):
    """Something to mend in what was asked for."""


def main(words: Sequence[str]) -> int:
    end = [*words, "--"].index("--")
    parser = argparse.ArgumentParser(prog="tools/bundle.sh")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--quick", action="store_true", help="with --verify: sizes only")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--python", default=HERE, help="the compute nodes' Python (default: the one running this)")
    parser.add_argument("--cuda", help="which build of torch: cu130, cpu, ... (default: PyPI's)")
    parser.add_argument("--extra", action="append", default=[], help="of setup.py: gpu, slurm, ...")
    parser.add_argument("--no-wheels", action="store_true", help="leave wheels/ as it is")
    parser.add_argument("folder", type=Path)
    parser.add_argument("venv", type=Path, nargs="?", help="with --install")
    asked = parser.parse_args(words[:end])
    if asked.install != (asked.venv is not None):
        parser.error("--install takes FOLDER and VENV, the rest FOLDER alone; overrides stand behind --")
    if not re.fullmatch(r"3\.\d+", asked.python):
        parser.error(f"--python {asked.python}: a version such as 3.12 is wanted")
    try:
        if asked.install:
            return install(asked.folder, asked.venv)
        return verify(asked.folder, asked.quick) if asked.verify else collect(asked, words[end + 1 :])
    except BundleError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2


# ---- the manifest


def names_in(folder: Path) -> list[str]:
    """The files of a bundle, relative to it."""
    found = (p for part in PARTS for p in (folder / part).rglob("*") if not p.is_dir() and ".locks" not in p.parts)
    return sorted(str(p.relative_to(folder)) for p in found)


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, on every core: hashlib lets other threads run meanwhile."""
    with concurrent.futures.ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 32)) as pool:
        # The largest first: one begun last would be waited for alone.
        work = {p: pool.submit(sha256, p) for p in sorted(paths, key=lambda p: -p.stat().st_size)}
        return [work[p].result() for p in paths]


def read_manifest(folder: Path) -> dict | None:
    """The manifest; None where there is none that can be read."""
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def damage(folder: Path, files: dict[str, dict], quick: bool = False) -> dict[str, str]:
    """What is wrong with each file that is not as the manifest says."""
    wrong, whole = {}, []
    for name, noted in files.items():
        path = folder / name
        if not path.is_file():
            wrong[name] = "missing"
        elif (size := path.stat().st_size) != noted["size"]:
            wrong[name] = f"{'truncated' if size < noted['size'] else 'too long'}: {size} of {noted['size']} bytes"
        else:
            whole.append(name)
    if not quick:
        found = zip(whole, hashes([folder / name for name in whole]), strict=True)
        wrong |= {name: "changed: another SHA-256" for name, digest in found if digest != files[name]["sha256"]}
    return wrong


def write_manifest(folder: Path, facts: dict) -> dict:
    """Written last and at once: a bundle without one was interrupted."""
    paths = [folder / name for name in names_in(folder)]
    digests = zip(paths, hashes(paths), strict=True)
    files = {str(p.relative_to(folder)): {"size": p.stat().st_size, "sha256": digest} for p, digest in digests}
    manifest = {**facts, "files": files}
    partial = folder / f"{MANIFEST}.part"
    partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    partial.replace(folder / MANIFEST)
    return manifest


# ---- on a compute node


def verify(folder: Path, quick: bool = False) -> int:
    """Compare with the manifest, print a table and everything that is wrong. 0 is sound."""
    manifest = read_manifest(folder)
    if manifest is None:
        why = f"no readable {MANIFEST}: its collecting or copying was interrupted, or it is no bundle"
        print(f"bundle: {folder} has {why}. Make it again where there is internet; copy all of it", file=sys.stderr)
        return 1
    files, begun = manifest["files"], time.monotonic()
    again = "copy it again from where the bundle was made, or run the command that made the bundle again"
    wrong = {name: (what, again) for name, what in damage(folder, files, quick).items()}
    seconds = time.monotonic() - begun
    wrong |= {name: ("extra: not in the manifest", "remove it") for name in names_in(folder) if name not in files}
    for part in PARTS:
        sizes = [noted["size"] for name, noted in files.items() if name.startswith(part + "/")]
        bad = sum(name.startswith(part + "/") for name in wrong)
        print(f"{part:16}{len(sizes):6} files{sum(sizes) / 1e9:7.2f} GB  " + (f"{bad} wrong" if bad else "sound"))
    print(f"wheels/ is for Python {manifest['python']} on {manifest['machine']}, torch {manifest['torch'] or '-'}")
    if _foreign(manifest):
        wrong["wheels"] = (_foreign(manifest), "PYTHON=... names another Python")
    wrong |= {m["name"]: (f"not collected: {m['problem']}", m["remedy"]) for m in manifest["missing"]}
    _show(wrong)
    print("sizes only; without --quick the contents are compared" if quick else f"read in {seconds:.1f} s")
    print(f"{len(wrong)} things are wrong" if wrong else "sound", usage(folder, manifest), sep="\n")
    return 1 if wrong else 0


def _foreign(manifest: dict) -> str:
    """Why the wheels do not fit here; "" when they do."""
    made_for, here = (manifest["python"], manifest["machine"]), (HERE, platform.machine())
    if made_for == here or not any(name.endswith(".whl") for name in manifest["files"]):
        return ""
    return f"its wheels are for Python {' on '.join(made_for)}, this is {' on '.join(here)}"


def _show(wrong: dict[str, tuple[str, str]], file=None) -> None:
    for name, (what, remedy) in wrong.items():
        print(f"  {name}: {what}\n    {remedy}", file=file)


def usage(folder: Path, manifest: dict) -> str:
    """The words that make a run use the bundle where it lies now."""
    where = folder.resolve()
    listed = where / "inputs/overrides.txt"
    copies = listed.read_text().replace(BUNDLE, str(where)).splitlines() if listed.is_file() else []
    ours = {word.partition("=")[0] for word in copies}
    given = [word for word in manifest["overrides"] if word.partition("=")[0] not in ours]
    return f"use it with SAIDPO_BUNDLE={shlex.quote(str(where))} and the overrides\n  {shlex.join([*given, *copies])}"


def install(folder: Path, venv: Path) -> int:
    """A virtual environment with all of wheels/, and nothing from elsewhere."""
    manifest = read_manifest(folder)
    wrong = damage(folder, manifest["files"], quick=True) if manifest else {}
    if manifest is None or wrong:
        raise BundleError(f"{folder} is damaged or has no manifest: tools/bundle.sh --verify {folder}")
    wheels = sorted(map(str, (folder / "wheels").glob("*.whl")))
    if not wheels:
        raise BundleError(f"{folder} was made with --no-wheels: collect it without, or install from elsewhere")
    if _foreign(manifest):
        raise BundleError(f"{_foreign(manifest)}: set PYTHON=/path/to/python{manifest['python']}")
    # Debian without python3-venv lacks ensurepip: then this Python's pip serves, as in tools/setup.sh.
    for options in ([], ["--without-pip"]):
        made = subprocess.run([sys.executable, "-m", "venv", *options, venv], capture_output=True, text=True)
        if made.returncode == 0:
            break
    else:
        raise BundleError(f"no environment could be made at {venv}: {made.stderr.strip() or made.stdout.strip()}")
    python = str(venv.resolve() / "bin/python")
    has_pip = (venv / "bin/pip").exists()
    pip = [python, "-m", "pip"] if has_pip else [sys.executable, "-m", "pip", "--python", python]
    # No index, constraint or folder that the user's own settings name takes part.
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("PIP_")}, "PIP_CONFIG_FILE": os.devnull}
    # --no-deps: wheels/ was resolved when it was collected; some of it only ships files (see `_ships`).
    if subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", *wheels], env=env).returncode != 0:
        raise BundleError(f"pip could not install {folder}/wheels; its words stand above")
    checked = subprocess.run([*pip, "check"], env=env, capture_output=True, text=True)
    broken = [] if checked.returncode == 0 else checked.stdout.splitlines()
    broken = [line for line in broken if line.split()[0] not in manifest["ships"]]
    if broken:
        print(*broken, "bundle: see what --verify says was not collected", sep="\n", file=sys.stderr)
    print(f"{len(wheels)} packages in {venv}\n{usage(folder, manifest)}\nand SAIDPO_PYTHON={shlex.quote(python)}")
    return 1 if broken else 0


# ---- where there is internet


def collect(asked: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Fill the folder; what cannot be had is named, and does not stop the rest. 0 is complete."""
    folder = asked.folder.resolve()
    foreign = {p.name for p in folder.glob("*")} - {"wheels", "huggingface", "inputs", MANIFEST, f"{MANIFEST}.part"}
    if foreign:
        raise BundleError(f"{folder} holds other things ({', '.join(sorted(foreign)[:3])}): name a folder of its own")
    config = _compose(overrides)  # before the manifest goes: a typo shall not cost a bundle
    uv = [] if asked.no_wheels else _uv()

    folder.mkdir(parents=True, exist_ok=True)
    before = read_manifest(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in damage(folder, before["files"]) if before else ():
        (folder / name).unlink(missing_ok=True)  # so that it is fetched again
    missing: dict[str, tuple[str, str]] = {}
    _inputs(folder, config, inputs.list_inputs(config), missing)
    torch = _wheels(folder / "wheels", asked, uv, config, missing) if uv else ""
    facts = {"python": asked.python, "machine": platform.machine(), "torch": torch, "ships": _ships(config)}
    listed = [{"name": name, "problem": what, "remedy": remedy} for name, (what, remedy) in missing.items()]
    manifest = write_manifest(folder, {**facts, "overrides": list(overrides), "missing": listed})
    size = sum(f["size"] for f in manifest["files"].values()) / 1e9
    print(f"{folder}: {len(manifest['files'])} files, {size:.2f} GB\n{usage(folder, manifest)}")
    if missing:
        print("bundle: NOT COMPLETE:", file=sys.stderr)
        _show(missing, sys.stderr)
    return 1 if missing else 0


def _compose(overrides: Sequence[str]):
    sys.path.insert(0, str(HOME))
    # Read at import: collecting is the one thing here that goes online; seconds rather than minutes where it cannot.
    os.environ.update(HF_HUB_OFFLINE="0", HF_HUB_ETAG_TIMEOUT="10", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    try:
        from hpc_saidpo.errors import RunError
    except ImportError as error:
        remedy = "run tools/setup.sh, or set PYTHON=... to one that has the project"
        raise BundleError(f"{sys.executable} lacks {error.name}: {remedy}") from error
    try:
        return compose.from_overrides(overrides)
    except RunError as error:
        raise BundleError(f"the overrides behind --: {error}") from error


def _inputs(folder: Path, config, found: Iterable, missing: dict[str, tuple[str, str]]) -> None:
    """Models, encoder and question files; inputs/overrides.txt, which makes a run use them."""
    copies: dict[str, dict[str, str]] = {}
    chosen = getattr(config.pool, "files", None) or DATA_FILES
    patterns = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    for wanted in found:
        # A benchmark's value may be its name; a model's may be the Hub's, and its path a cache.
        of_file = wanted.kind == "questions" and wanted.path
        name, source = f"{wanted.key}={wanted.value}", Path(wanted.path if of_file else wanted.value)
        print(f"  {name}", flush=True)
        if wanted.value.startswith("pkg://"):
            continue  # in wheels/
        if source.exists():
            if wanted.problem:
                missing[name] = (wanted.problem, "mend it, and collect again")
            place = f"inputs/{wanted.key}/" + re.sub(r"[^\w.+-]", "_", source.absolute().name)
            if place in copies.get(wanted.key, {}).values():
                raise BundleError(f"{name}: two of {wanted.key} are called {source.name}: rename one")
            copies.setdefault(wanted.key, {})[wanted.value] = place
            _copy(source, folder / place, patterns if wanted.kind == "pool" else None)
        elif wanted.kind != "questions" and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", wanted.value):
            remedy = f"try HF_ENDPOINT=https://a.mirror, hf auth login (gated), or give {wanted.key}=/folder/with/it"
            of_what = patterns if wanted.kind == "pool" else None
            if problem := _hub(
                folder / "huggingface/hub", wanted.value, "" if wanted.problem else wanted.path, of_what
            ):
                missing[name] = (problem, remedy)
        elif wanted.kind == "pool" and not wanted.problem:
            missing[name] = ("is a pattern", f"give {wanted.key}=/the/folder and pool.files='the pattern in it'")
        else:
            missing[name] = (wanted.problem, f"give a {wanted.key} that is here")
    lines = []
    for key, places in copies.items():
        group, _, field = key.partition(".")
        value = getattr(getattr(config, group), field)
        there = [f"{BUNDLE}/{places[v]}" if v in places else v for v in ([value] if isinstance(value, str) else value)]
        lines.append(f"{key}={there[0]}\n" if isinstance(value, str) else f"{key}=[{','.join(there)}]\n")
    if "evaluate.benchmarks" in copies:
        lines.append(f"evaluate.folder={BUNDLE}/inputs/evaluate.benchmarks\n")
    (folder / "inputs").mkdir(exist_ok=True)
    (folder / "inputs/overrides.txt").write_text("".join(lines), encoding="utf-8")


def _wanted(names: Iterable[str], of_pool: Sequence[str] | None) -> list[str]:
    """Of a model's files, those a run reads: not the same weights in other forms; of a dataset's, these patterns'."""
    if of_pool is not None:
        return [n for n in names if any(fnmatch.fnmatch(n, p) for p in (*of_pool, *DATASET_FILES))]
    names = [n for n in names if not any(fnmatch.fnmatch(n, p) for p in DUPLICATES) and not n.startswith(".")]
    patterns = MODEL_FILES if fnmatch.filter(names, "*.safetensors") else (*MODEL_FILES, "*.bin")
    return [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)]


def _copy(source: Path, target: Path, of_pool: Sequence[str] | None = None) -> None:
    """Make the target hold a file, or a model's or dataset's files and no others; what is there already stays."""
    names = [""]  # a file (questions, GGUF) is itself
    if source.is_dir():
        names = _wanted((str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()), of_pool)
    for name in names:
        one, copy = source / name, target / name
        if copy.is_file() and copy.stat().st_size == one.stat().st_size and sha256(copy) == sha256(one):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f"{copy.name}.part")
        shutil.copyfile(one, partial)
        partial.replace(copy)
    for stale in {p for p in target.rglob("*") if p.is_file()} - {target / name for name in names}:
        stale.unlink()


def _hub(cache: Path, name: str, cached: str, of_pool: Sequence[str] | None) -> str:
    """Fetch a model or dataset from the Hub, or copy the snapshot `cached` where that fails.

    Args:
        of_pool: which files of a dataset; None: it is a model.

    Returns:
        The problem, or "".
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # Asked once and first: the later requests are tried again for half a minute where nothing answers.
        kind = "model" if of_pool is None else "dataset"
        about = HfApi().repo_info(name, repo_type=kind, timeout=10)
        wanted = _wanted((s.rfilename for s in about.siblings), of_pool)
        where = {"repo_type": kind, "revision": about.sha, "cache_dir": cache}
        snapshot = Path(snapshot_download(name, allow_patterns=wanted, **where))
    except (OSError, *HfHubHTTPError.__bases__) as error:  # the bases: those of the HTTP library it is built on
        if not cached:
            return f"could not be fetched from the Hub ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        print("    the Hub could not be reached: copied from the local Hub cache", flush=True)
        snapshot = cache / Path(cached).parent.parent.name / "snapshots" / Path(cached).name
        _copy(Path(cached), snapshot, of_pool)
    model = snapshot.parent.parent
    # Files in the place of links to blobs: links do not survive every way of copying, or come out twice.
    for link in [p for p in snapshot.parent.rglob("*") if p.is_symlink()]:
        blob = link.resolve()
        link.unlink()
        os.link(blob, link)
    shutil.rmtree(model / "blobs", ignore_errors=True)
    # A revision that was asked for by its hash leaves no `main`, under which a name without revision is looked up.
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs/main").write_text(snapshot.name)
    return ""


# ---- wheels: uv resolves for the compute nodes' Python, pip downloads


def _uv() -> list[str]:
    """How uv is called; it is told what pip's settings say."""
    uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else [shutil.which("uv") or ""]
    if not uv[0]:
        raise BundleError("collecting wheels needs uv: pip install uv (--no-wheels does without)")
    shown = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    settings = dict(re.findall(r"^(?:global|user|site|:env:)\.([\w-]+)=('.*')$", shown, re.MULTILINE))
    words = ["--index-strategy", "unsafe-best-match"]  # what pip does with several
    words += ["--no-index"] if settings.get("no-index") == "'true'" else []
    for name in ("index-url", "extra-index-url", "find-links", "constraint", "cert"):
        for value in ast.literal_eval(settings.get(name, "''")).split():
            words += [f"--{name}", value]
    return [*uv, "pip", "compile", "--quiet", "--no-python-downloads", "--no-header", "--no-annotate", *words]


def _ships(config) -> list[str]:
    """The packages that ship the models named pkg://: without dependencies, which only serve to run them otherwise."""
    paths = getattr(config.pool, "path", ())
    named = [config.policy.path, *([paths] if isinstance(paths, str) else paths)]
    if config.clusters.n > 1:
        named += [config.clusters.encoder, *[config.tags.model] * (config.tags.mode == "model")]
    modules = {n.removeprefix("pkg://").partition("/")[0] for n in named if n.startswith("pkg://")} - {"hpc_saidpo"}
    known = importlib.metadata.packages_distributions()
    return sorted({known.get(m, [m.replace("_", "-")])[0] for m in modules})


def _wheels(wheels: Path, asked: argparse.Namespace, uv: list[str], config, missing: dict) -> str:
    """Fill wheels/. Returns the version of torch in it; "" when there is none."""
    wheels.mkdir(exist_ok=True)
    again = "try again, or name an index that can be reached: PIP_INDEX_URL=https://..., PIP_FIND_LINKS=/folder"
    with tempfile.TemporaryDirectory() as scratch:
        # From a copy: setuptools leaves build/ behind, and would take into the wheel what an older one holds.
        parts = ("hpc_saidpo", "conf", "setup.py", "pyproject.toml", "README.md", "LICENSE")
        subprocess.run(["cp", "-r", *(HOME / part for part in parts), scratch], check=True)
        done = _pip("wheel", "-w", str(wheels), scratch)
    if done.returncode != 0:
        missing["wheels"] = (_words(done), again)
        return ""
    project = next(wheels.glob("hpc_saidpo-*.whl"))
    machine = platform.machine()
    platforms = _platforms(machine)
    uv = [*uv, "--python-version", asked.python, "--python-platform", f"{machine}-manylinux_2_{GLIBC}"]
    uv += ["--find-links", str(wheels), "-"]
    done, from_index = _lock(wheels, _required(project, asked, config), asked.cuda, uv)
    if done.returncode != 0:
        missing["wheels"] = (_words(done), again)
        return ""
    pins = (wheels / "lock.txt").read_text().split()
    for name in _ships(config):
        done = _run([*uv, "--no-deps"], name)
        pins += (done.stdout.split() or [name]) if not any(p.startswith(f"{name}==") for p in pins) else []
    print(f"  wheels: {len(pins)} packages for Python {asked.python}", flush=True)

    locked = dict(pin.split("==") for pin in pins if "==" in pin)
    pins = _without_those_there(wheels, pins, locked, asked.python, platforms)
    target = ["--only-binary=:all:", "--python-version", asked.python, "--implementation", "cp"]
    target += [f"--platform={p}" for p in platforms] + ["--find-links", str(wheels), "-d", str(wheels)]
    if from_index:
        target += ["--extra-index-url", TORCH_INDEX + asked.cuda]
    for first in range(0, len(pins), 16):  # pip keeps what it has only at its end
        _download(pins[first : first + 16], target, wheels, missing, again)
    if asked.cuda and not locked["torch"].endswith(f"+{asked.cuda}"):
        problem = f"could not be had from {TORCH_INDEX}{asked.cuda}; wheels/ holds PyPI's torch {locked['torch']}"
        missing[f"torch {asked.cuda}"] = (problem, "download its wheel elsewhere into wheels/, and collect again")
    return locked["torch"]


def _platforms(machine: str) -> list[str]:
    """Tags of wheels that run on the compute nodes, the newest first."""
    old = (f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1", "linux"))
    return [*(f"manylinux_2_{n}_{machine}" for n in range(GLIBC, 4, -1)), *old]


def _required(project: Path, asked: argparse.Namespace, config) -> list[str]:
    """What is resolved: the project with the extras that were asked for or that the configuration implies, an MPI."""
    known = next(iter(importlib.metadata.distributions(name="hpc_saidpo", path=[str(project)]))).metadata
    demo = config.pool.kind == "reasoning_gym" or any(
        path.endswith(".gguf") for path in (config.policy.path, config.tags.model)
    )
    gpu = config.clusters.backend == "gpu" or config.policy.attention.startswith("flash_attention")
    arrow = any(path.suffix in (".parquet", ".arrow") for path in project.parent.parent.rglob("*"))
    extras = {*asked.extra, *["demo"] * demo, *["gpu"] * gpu, *["data"] * arrow}
    if unknown := extras - set(known.get_all("Provides-Extra")):
        raise BundleError(f"--extra {', '.join(unknown)}: there are {', '.join(known.get_all('Provides-Extra'))}")
    mpi = [] if "MPI4PY_LIBMPI" in os.environ else ["mpich"]
    return [f"hpc_saidpo[{','.join(sorted(extras))}] @ {project.as_uri()}", *mpi]


def _lock(
    wheels: Path, required: list[str], cuda: str | None, uv: list[str]
) -> tuple[subprocess.CompletedProcess, bool]:
    """Write wheels/lock.txt. Returns how that went, and whether torch comes from its own index."""
    # Where torch's own index cannot be reached: its wheel from a folder that pip knows, else PyPI's build.
    pin = re.search(r"^torch==[\d.]+", (HOME / "tools/constraints-cpu.txt").read_text(), re.MULTILINE)[0]
    ways = [(["--torch-backend", cuda], []), ([], [f"{pin}+{cuda}"])] if cuda else []
    for options, torch in [*ways, ([], [])]:
        lock = ["--no-emit-package", "hpc-saidpo", "-o", str(wheels / "lock.txt"), *options]
        done = _run([*uv, *lock], "\n".join([*required, *torch]))
        if done.returncode == 0:
            break
    return done, bool(options)


def _without_those_there(wheels: Path, pins: list[str], locked: dict, python: str, platforms: list[str]) -> list[str]:
    """The pins that wheels/ lacks; what it holds of an older collecting, and is not pinned so, is removed."""
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


def _download(pins: list[str], target: list[str], wheels: Path, missing: dict, again: str) -> None:
    """Download wheels; where there is none, build one that fits the nodes' Python, or name the package."""
    fits = "*.whl" if HERE in target else "*-none-any.whl"
    while pins:
        done = _pip("download", *target, *pins)
        if done.returncode == 0:
            return
        lost = re.search(r"No matching distribution found for (\S+)", done.stderr)
        if lost is None or lost[1] not in pins:
            missing[" ".join(pins)] = (_words(done), again)
            return
        pins = [pin for pin in pins if pin != lost[1]]
        with tempfile.TemporaryDirectory() as scratch:
            done = _pip("wheel", "-w", scratch, lost[1])
            built = [shutil.copy(path, wheels) for path in Path(scratch).glob(fits)]
        if not built:
            why = "the one built here is for this Python only" if done.returncode == 0 else _words(done)
            remedy = f"pip wheel '{lost[1]}' --no-deps --no-build-isolation -w {wheels}; then collect again"
            missing[lost[1]] = (f"no wheel ({why})", f"build it once on a compute node, with torch there: {remedy}")


def _run(line: list[str], text: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(line, input=text, capture_output=True, text=True)


def _pip(command: str, *words: str) -> subprocess.CompletedProcess:
    options = ["--no-deps", "--retries", "1", "--timeout", "15", "--disable-pip-version-check", "--quiet"]
    return _run([sys.executable, "-m", "pip", command, *options, *words])


def _words(done: subprocess.CompletedProcess) -> str:
    """What pip or uv says went wrong, in one line."""
    said = [line for line in done.stderr.splitlines() if line.lower().startswith(("error: ", "  cause: "))]
    return " ".join(line.split(": ", 1)[1] for line in said[-2:]) or done.stderr.strip()[-200:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
