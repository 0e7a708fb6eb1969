"""A bundle on a compute node: compare it with its manifest, make an environment from it. Needs no package.

The hashes in the manifest show damage. They are no signature: whoever can write the folder can write its manifest.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hpc_saidpo.errors import shown, visible
from hpc_saidpo.names import inside
from hpc_saidpo.reading import open_file, parse_json, read_text

MANIFEST = "MANIFEST.json"
BUNDLE = "{BUNDLE}"  # in inputs/overrides.txt: the folder, wherever it lies
PARTS = ("wheels", "huggingface/hub", "inputs")  # beside hub/, HF_HOME fills with caches and locks of its users
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


class BundleError(Exception):
    """An error that the user can correct."""


def names_in(folder: Path) -> list[str]:
    """The files of a bundle and its links to folders, relative to it."""
    found = (p for part in PARTS for p in (folder / part).rglob("*") if p.is_symlink() or not p.is_dir())
    return sorted(str(p.relative_to(folder)) for p in found if ".locks" not in p.relative_to(folder).parts)


def links_out(folder: Path) -> list[str]:
    """The links in a folder that lead out of it, relative to it."""
    links = (str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink())
    return sorted(name for name in links if _fault(folder, name))


def _fault(folder: Path, name: str) -> str:
    try:
        inside(folder, name)
    except ValueError as error:
        return str(error)
    return ""


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(open_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file, on every core: hashlib lets other threads run."""
    with concurrent.futures.ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), 32)) as pool:
        # The largest first: if it started last, all other cores would wait for it.
        work = {p: pool.submit(sha256, p) for p in sorted(paths, key=lambda p: -p.stat().st_size)}
        return [work[p].result() for p in paths]


def read_manifest(folder: Path) -> dict | None:
    """The manifest; None where none can be read, or a part of it is missing or of another type."""
    try:
        manifest = parse_json(read_text(folder / MANIFEST))
    except (OSError, ValueError):
        return None
    fits = isinstance(manifest, dict) and all(key in manifest and fits(manifest[key]) for key, fits in _TYPES.items())
    return manifest if fits else None


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item.isprintable() for item in value)


def _are_problems(value: object) -> bool:
    keys = ("name", "problem", "remedy")
    return isinstance(value, list) and all(
        isinstance(item, dict) and all(isinstance(item.get(key), str) for key in keys) for item in value
    )


def _are_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(noted, dict) and type(noted.get("size")) is int and isinstance(noted.get("sha256"), str)
        for noted in value.values()
    )


_TYPES: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("python", "machine", "torch"), lambda value: isinstance(value, str) and value.isprintable()),
    **dict.fromkeys(("ships", "overrides"), _are_texts),
    "missing": _are_problems,
    "files": _are_files,
}


def damage(folder: Path, files: dict[str, dict], quick: bool = False) -> dict[str, str]:
    """The problem of each file that differs from the manifest."""
    wrong: dict[str, str] = {}
    whole: list[str] = []
    for name, noted in files.items():
        path = folder / name
        if fault := _fault(folder, name):
            wrong[name] = f"is no file of a bundle: {fault}"
        elif not path.is_file():
            wrong[name] = "missing"
        elif (size := path.stat().st_size) != noted["size"]:
            wrong[name] = f"{'truncated' if size < noted['size'] else 'too long'}: {size} of {noted['size']} bytes"
        else:
            whole.append(name)
    if not quick:
        digests = zip(whole, hashes([folder / name for name in whole]), strict=True)
        wrong |= {name: "changed: another SHA-256" for name, digest in digests if digest != files[name]["sha256"]}
    return wrong


def write_manifest(folder: Path, facts: dict) -> dict:
    """Write the manifest, last and at once: a bundle without one was interrupted. Returns it."""
    paths = [folder / name for name in names_in(folder)]
    digests = zip(paths, hashes(paths), strict=True)
    files = {str(p.relative_to(folder)): {"size": p.stat().st_size, "sha256": digest} for p, digest in digests}
    manifest = {**facts, "files": files}
    put(folder / MANIFEST, lambda partial: partial.write_text(json.dumps(manifest, indent=1), encoding="utf-8"))
    return manifest


def put(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` write a new file beside a path, then move it there. No link is followed."""
    partial = path.with_name(f"{path.name}.part")
    partial.unlink(missing_ok=True)  # of an interrupted collecting
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
    write(partial)
    partial.replace(path)


def verify(folder: Path, quick: bool = False) -> int:
    """Compare with the manifest, print a table and every problem. Returns 0 when there is none, else 1."""
    manifest = read_manifest(folder)
    if manifest is None:
        why = f"no readable {MANIFEST}: its collecting or copying was interrupted, or it is no bundle"
        print(
            f"bundle: {shown(folder)} has {why}. Make it again where there is internet; copy all of it", file=sys.stderr
        )
        return 1
    files, begun = manifest["files"], time.monotonic()
    again = "copy it again from where the bundle was made, or run the command that made the bundle again"
    wrong = {name: (problem, again) for name, problem in damage(folder, files, quick).items()}
    seconds = time.monotonic() - begun
    wrong |= {name: ("extra: not in the manifest", "remove it") for name in names_in(folder) if name not in files}
    for part in PARTS:
        sizes = [noted["size"] for name, noted in files.items() if name.startswith(part + "/")]
        bad = sum(name.startswith(part + "/") for name in wrong)
        print(f"{part:16}{len(sizes):6} files{sum(sizes) / 1e9:7.2f} GB  " + (f"{bad} wrong" if bad else "sound"))
    print(f"wheels/ is for Python {manifest['python']} on {manifest['machine']}, torch {manifest['torch'] or '-'}")
    if foreign := _foreign(manifest):
        wrong["wheels"] = (foreign, "PYTHON=... names another Python")
    wrong |= {m["name"]: (f"not collected: {m['problem']}", m["remedy"]) for m in manifest["missing"]}
    show(wrong)
    print("sizes only; without --quick the contents are compared" if quick else f"read in {seconds:.1f} s")
    print(f"{len(wrong)} things are wrong" if wrong else "sound", usage(folder, manifest), sep="\n")
    return 1 if wrong else 0


def _foreign(manifest: dict) -> str:
    """Why the wheels do not suit this machine; "" when they do."""
    made_for, here = (manifest["python"], manifest["machine"]), (HERE, platform.machine())
    if made_for == here or not any(name.endswith(".whl") for name in manifest["files"]):
        return ""
    return f"its wheels are for Python {' on '.join(made_for)}, this is {' on '.join(here)}"


def show(wrong: Mapping[str, tuple[str, str]], file: TextIO | None = None) -> None:
    """Print each problem and its remedy."""
    for name, (problem, remedy) in wrong.items():
        print(*(shown(text) for text in (f"  {name}: {problem}", f"    {remedy}")), sep="\n", file=file)


def usage(folder: Path, manifest: dict) -> str:
    """The words that make a run use the bundle in its present place."""
    where = folder.resolve()
    listed = where / "inputs/overrides.txt"
    text = read_text(listed) if listed.is_file() and not _fault(where, "inputs/overrides.txt") else ""
    copies = text.replace(BUNDLE, str(where)).splitlines()
    replaced = {word.partition("=")[0] for word in copies}
    kept = [word for word in manifest["overrides"] if word.partition("=")[0] not in replaced]
    place, words = visible(str(where), kept=""), [visible(word, kept="") for word in (*kept, *copies)]
    return f"use it with SAIDPO_BUNDLE={shlex.quote(place)} and the overrides\n  {shlex.join(words)}"


def _is_wheel(name: str) -> bool:
    return name.startswith("wheels/") and name.count("/") == 1 and name.endswith(".whl")


def _requirements(folder: Path, wheels: Mapping[str, dict]) -> Iterator[str]:
    """Lines from which pip installs these files and no others; it compares their contents once more."""
    for name, noted in sorted(wheels.items()):
        yield f"{(folder.resolve() / name).as_uri()} --hash=sha256:{noted['sha256']}\n"


def install(folder: Path, venv: Path) -> int:
    """Make a virtual environment with the wheels that the manifest lists, and nothing else. Returns the exit code.

    The contents of the wheels are compared with their SHA-256; of other files the sizes.

    Raises:
        BundleError: the bundle is damaged, holds no wheels, or wheels for another Python; the environment fails.
    """
    manifest = read_manifest(folder)
    wheels = {name: noted for name, noted in manifest["files"].items() if _is_wheel(name)} if manifest else {}
    if manifest is None or damage(folder, wheels) or damage(folder, manifest["files"], quick=True):
        raise BundleError(f"{shown(folder)} is damaged or has no manifest: tools/bundle.sh --verify {shown(folder)}")
    if not wheels:
        raise BundleError(f"{shown(folder)} was made with --no-wheels: collect it without, or install from elsewhere")
    if foreign := _foreign(manifest):
        raise BundleError(f"{foreign}: set PYTHON=/path/to/python{manifest['python']}")
    # Debian without python3-venv lacks ensurepip: then this Python's pip installs, as in tools/setup.sh.
    for options in ([], ["--without-pip"]):
        made = subprocess.run([sys.executable, "-m", "venv", *options, venv], capture_output=True, text=True)
        if made.returncode == 0:
            break
    else:
        raise BundleError(f"no environment could be made at {venv}: {made.stderr.strip() or made.stdout.strip()}")
    python = str(venv.resolve() / "bin/python")
    has_pip = (venv / "bin/pip").exists()
    pip = [python, "-m", "pip"] if has_pip else [sys.executable, "-m", "pip", "--python", python]
    # The user's settings of pip (index, constraint, folder) have no effect here.
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("PIP_")}, "PIP_CONFIG_FILE": os.devnull}
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(_requirements(folder, wheels))
        file.flush()
        # --no-deps: wheels/ was resolved when it was collected; some of it only ships files (`bundle_wheels.ships`).
        options = ["--quiet", "--no-index", "--no-deps", "--require-hashes", "-r", file.name]
        if subprocess.run([*pip, "install", *options], env=env).returncode != 0:
            raise BundleError(f"pip could not install {shown(folder)}/wheels; its message is above")
    checked = subprocess.run([*pip, "check"], env=env, capture_output=True, text=True)
    broken = [] if checked.returncode == 0 else checked.stdout.splitlines()
    broken = [line for line in broken if line.split()[0] not in manifest["ships"]]
    if broken:
        print(*broken, "bundle: see what --verify says was not collected", sep="\n", file=sys.stderr)
    print(f"{len(wheels)} packages in {venv}\n{usage(folder, manifest)}\nand SAIDPO_PYTHON={shlex.quote(python)}")
    return 1 if broken else 0
