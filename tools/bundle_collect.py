"""Collecting a bundle where there is internet: models, encoder, pool and benchmarks of a configuration."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import interpreter
from bundle_check import (
    BUNDLE,
    MANIFEST,
    BundleError,
    damage,
    links_out,
    put,
    read_manifest,
    sha256,
    show,
    usage,
    write_manifest,
)  # fmt: skip
from bundle_wheels import Target, collect_wheels, ships, uv_command

# Read when the libraries are imported. Collecting alone uses the network; without one it fails in seconds, not minutes.
os.environ.update(HF_HUB_OFFLINE="0", HF_HUB_ETAG_TIMEOUT="10", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
interpreter.require()

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from hpc_saidpo.cli import compose
from hpc_saidpo.doctor import inputs
from hpc_saidpo.errors import RunError, shown
from hpc_saidpo.names import as_name, inside
from hpc_saidpo.settings.whole import Settings

MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
DATA_FILES = tuple(f"*.{form}{gz}" for form in ("jsonl", "ndjson", "json", "csv", "tsv") for gz in ("", ".gz"))
DATA_FILES += ("*.parquet", "*.arrow")
DATASET_FILES = ("state.json", "*/state.json", "dataset_dict.json")  # they name the files of a saved dataset
# The same weights in other forms, and files that a trainer leaves beside them.
DUPLICATES = ("consolidated*", "original/*", "onnx/*", "openvino/*", "checkpoint-*/*")
Missing = dict[str, tuple[str, str]]  # name -> (problem, remedy)


def collect(folder: Path, target: Target | None, overrides: Sequence[str], python: str) -> int:
    """Fill the folder. A missing part is reported, and does not stop the rest.

    Args:
        target: whose wheels are collected; None: wheels/ stays as it is.
        overrides: of the configuration whose inputs are collected.
        python: the compute nodes' version.

    Returns:
        0 when the bundle is complete, else 1.

    Raises:
        BundleError: the folder holds other things; an override is wrong; uv is missing.
    """
    folder = folder.resolve()
    foreign = {p.name for p in folder.glob("*")} - {"wheels", "huggingface", "inputs", MANIFEST, f"{MANIFEST}.part"}
    if foreign:
        raise BundleError(
            f"{shown(folder)} holds other things ({', '.join(sorted(foreign)[:3])}): name a folder of its own"
        )
    try:
        config = compose.from_overrides(overrides)  # before the manifest is removed: a typo shall not cost a bundle
    except RunError as error:
        raise BundleError(f"the overrides behind --: {error}") from error
    uv = uv_command() if target else []
    if links := links_out(folder):
        raise BundleError(
            f"{shown(folder)}/{links[0]} is a link that leads out of the bundle: remove it, and collect again"
        )

    folder.mkdir(parents=True, exist_ok=True)
    before = read_manifest(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, problem in damage(folder, before["files"]).items() if before else ():
        with contextlib.suppress(ValueError):  # a name that leads elsewhere is not followed
            if problem != "missing":
                inside(folder, name).unlink()  # so that it is fetched again
    missing: Missing = {}
    _collect_inputs(folder, config, inputs.list_inputs(config), missing)
    torch = collect_wheels(folder / "wheels", target, uv, config, missing) if target else ""
    facts = {"python": python, "machine": platform.machine(), "torch": torch, "ships": ships(config)}
    listed = [{"name": name, "problem": problem, "remedy": remedy} for name, (problem, remedy) in missing.items()]
    manifest = write_manifest(folder, {**facts, "overrides": list(overrides), "missing": listed})
    size = sum(f["size"] for f in manifest["files"].values()) / 1e9
    print(f"{shown(folder)}: {len(manifest['files'])} files, {size:.2f} GB\n{usage(folder, manifest)}")
    if missing:
        print("bundle: NOT COMPLETE:", file=sys.stderr)
        show(missing, sys.stderr)
    return 1 if missing else 0


def _collect_inputs(folder: Path, config: Settings, needed: Iterable[inputs.Input], missing: Missing) -> None:
    """Collect models, encoder and question files; write inputs/overrides.txt, which makes a run use them."""
    copies: dict[str, dict[str, str]] = {}
    chosen = getattr(config.pool, "files", None) or DATA_FILES
    patterns = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    for wanted in needed:
        # A benchmark's value may be its name; a model's may be the Hub's, and its path a cache.
        of_file = wanted.kind == "questions" and wanted.path
        name, source = f"{wanted.key}={wanted.value}", Path(wanted.path if of_file else wanted.value)
        print(f"  {name}", flush=True)
        if wanted.value.startswith("pkg://"):
            continue  # in wheels/
        if source.exists():
            if wanted.problem:
                missing[name] = (wanted.problem, "correct it, and collect again")
            own = as_name(os.path.abspath(source).rpartition("/")[2])  # that of a folder, if the value ends with ".."
            place = f"inputs/{wanted.key}/" + re.sub(r"[^\w.+-]", "_", own)
            if place in copies.get(wanted.key, {}).values():
                raise BundleError(f"{name}: two of {wanted.key} are called {shown(source.name)}: rename one")
            copies.setdefault(wanted.key, {})[wanted.value] = place
            _copy(source, folder / place, patterns if wanted.kind == "pool" else None)
        elif wanted.kind != "questions" and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", wanted.value):
            remedy = f"try HF_ENDPOINT=https://a.mirror, hf auth login (gated), or set {wanted.key}=/folder/with/it"
            of_pool, cached = patterns if wanted.kind == "pool" else None, "" if wanted.problem else wanted.path
            if problem := _fetch(folder / "huggingface/hub", wanted.value, cached, of_pool):
                missing[name] = (problem, remedy)
        elif wanted.kind == "pool" and not wanted.problem:
            missing[name] = ("is a pattern", f"set {wanted.key}=/the/folder and pool.files='the pattern in it'")
        else:
            missing[name] = (wanted.problem, f"set {wanted.key} to one that exists here")
    (folder / "inputs").mkdir(exist_ok=True)
    (folder / "inputs/overrides.txt").write_text("".join(_overrides(config, copies)), encoding="utf-8")


def _overrides(config: Settings, copies: dict[str, dict[str, str]]) -> list[str]:
    """Lines of overrides that name the copies.

    Args:
        copies: key -> its values -> the place of each in the bundle.
    """
    lines = []
    for key, places in copies.items():
        group, _, field = key.partition(".")
        value = getattr(getattr(config, group), field)
        new = [f"{BUNDLE}/{places[v]}" if v in places else v for v in ([value] if isinstance(value, str) else value)]
        lines.append(f"{key}={new[0]}\n" if isinstance(value, str) else f"{key}=[{','.join(new)}]\n")
    if "evaluate.benchmarks" in copies:
        lines.append(f"evaluate.folder={BUNDLE}/inputs/evaluate.benchmarks\n")
    return lines


def _wanted(names: Iterable[str], of_pool: Sequence[str] | None) -> list[str]:
    """The files that a run reads. Of a model: not the same weights in other forms; of a dataset: by these patterns."""
    if of_pool is not None:
        return [n for n in names if any(fnmatch.fnmatch(n, p) for p in (*of_pool, *DATASET_FILES))]
    names = [n for n in names if not any(fnmatch.fnmatch(n, p) for p in DUPLICATES) and not n.startswith(".")]
    patterns = MODEL_FILES if fnmatch.filter(names, "*.safetensors") else (*MODEL_FILES, "*.bin")
    return [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)]


def _copy(source: Path, target: Path, of_pool: Sequence[str] | None = None) -> None:
    """Make the target hold a file, or a model's or dataset's files and no others; equal files stay as they are."""
    names = [""]  # a file (questions, GGUF) is itself
    if source.is_dir():
        names = _wanted((str(p.relative_to(source)) for p in source.rglob("*") if p.is_file()), of_pool)
    for name in names:
        one, copy = source / name, target / name
        if copy.is_file() and copy.stat().st_size == one.stat().st_size and sha256(copy) == sha256(one):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        put(copy, functools.partial(shutil.copyfile, one))
    for stale in {p for p in target.rglob("*") if p.is_file()} - {target / name for name in names}:
        stale.unlink()


def _fetch(cache: Path, name: str, cached: str, of_pool: Sequence[str] | None) -> str:
    """Fetch a model or dataset from the Hub; where that fails, copy the snapshot `cached`.

    Args:
        of_pool: which files of a dataset; None: it is a model.

    Returns:
        The problem, or "".
    """
    try:
        # One request first: the later ones are repeated for half a minute where nothing answers.
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
    # A revision requested by its hash leaves no `main`, and a name without revision means `main`.
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs/main").write_text(snapshot.name)
    return ""
