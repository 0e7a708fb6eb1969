"""What tools/bundle.sh does; its usage is there. Only collecting imports more than the standard library."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import email
import fnmatch
import hashlib
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
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
MANIFEST = "MANIFEST.json"
BUNDLE = "{BUNDLE}"  # in inputs/overrides.txt: the folder, wherever it lies
PARTS = ("wheels", "huggingface/hub", "inputs")  # beside hub/, HF_HOME fills with caches and locks of its users
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
TORCH_INDEX = "https://download.pytorch.org/whl/"
OLD_MANYLINUX = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # before glibc's version was in the name
MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
# The same weights in other forms, and what a trainer leaves beside them.
DUPLICATES = ("consolidated*", "original/*", "onnx/*", "openvino/*", "checkpoint-*/*")
AGAIN = "copy it again from where the bundle was made, or run the command that made the bundle again"


class BundleError(Exception):
    """Something to mend in what was asked for."""


def main(words: Sequence[str]) -> int:
    own, overrides = list(words), []
    if "--" in own:
        own, overrides = own[: own.index("--")], own[own.index("--") + 1 :]
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
    asked = parser.parse_args(own)
    if asked.install != (asked.venv is not None):
        parser.error("--install takes FOLDER and VENV, the rest FOLDER alone; overrides stand behind --")
    if not re.fullmatch(r"3\.\d+", asked.python):
        parser.error(f"--python {asked.python}: a version such as 3.12 is wanted")
    try:
        if asked.install:
            return install(asked.folder, asked.venv)
        if asked.verify:
            return verify(asked.folder, asked.quick)
        return collect(asked, overrides)
    except BundleError as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 2


# ---- the manifest


def names_in(folder: Path) -> list[str]:
    """The files of a bundle, relative to it."""
    found = (p for part in PARTS for p in (folder / part).rglob("*") if not p.is_dir() and ".locks" not in p.parts)
    return sorted(str(p.relative_to(folder)) for p in found)


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(paths: Sequence[Path]) -> list[str]:
    """SHA-256 of each file; one process per core."""
    cores = len(os.sched_getaffinity(0))
    with concurrent.futures.ProcessPoolExecutor(max(1, min(cores, len(paths), 32))) as pool:
        # The largest first: one begun last would be waited for alone.
        work = {p: pool.submit(sha256, p) for p in sorted(paths, key=lambda p: -p.stat().st_size)}
        return [work[p].result() for p in paths]


def read_manifest(folder: Path) -> dict | None:
    """The manifest; None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and "files" in manifest else None


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
    if whole and not quick:
        found = zip(whole, hashes([folder / name for name in whole]), strict=True)
        wrong |= {name: "changed: another SHA-256" for name, digest in found if digest != files[name]["sha256"]}
    return wrong


def write_manifest(folder: Path, facts: dict) -> dict:
    """Written last and at once: a bundle without one was interrupted."""
    names = names_in(folder)
    digests = hashes([folder / name for name in names])
    sizes = [(folder / name).stat().st_size for name in names]
    files = {n: {"size": s, "sha256": d} for n, s, d in zip(names, sizes, digests, strict=True)}
    manifest = {**facts, "files": files}
    partial = folder / f"{MANIFEST}.part"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / MANIFEST)
    return manifest


# ---- on a compute node


def verify(folder: Path, quick: bool = False) -> int:
    """Compare with the manifest, print a table and everything that is wrong. 0 is sound."""
    manifest = read_manifest(folder)
    if manifest is None:
        print(
            f"bundle: {folder} has no readable {MANIFEST}: its collecting or copying was interrupted, or it is no "
            "bundle. Run the command that makes it again where there is internet (it goes on), then copy all of it",
            file=sys.stderr,
        )
        return 1
    files, begun = manifest["files"], time.monotonic()
    wrong = {name: (what, AGAIN) for name, what in damage(folder, files, quick).items()}
    seconds = time.monotonic() - begun
    extra = {name: ("extra: not in the manifest", "remove it") for name in names_in(folder) if name not in files}
    wrong |= extra
    print(f"{'part':16}{'files':>7}{'size':>10}  state")
    for part in PARTS:
        inside = [name for name in files if name.startswith(part + "/")]
        bad = sum(name.startswith(part + "/") for name in wrong)
        print(
            f"{part:16}{len(inside):7}{_size(sum(files[n]['size'] for n in inside)):>10}  "
            + (f"{bad} wrong" if bad else "sound")
        )
    for name, made_for, here in _machine(manifest):
        fits = _version(made_for) <= _version(here) if name == "glibc" else made_for == here
        print(f"{name:16}{made_for:>17}  {'sound' if fits else 'wrong'}: {here or 'none'} here")
        if not fits:
            remedy = "PYTHON=... names another" if name == "python" else "collect on a machine like this one"
            wrong[name] = (f"wheels/ is for {made_for}, this is {here or 'unknown'}", remedy)
    print(f"{'torch':16}{manifest.get('cuda') or '-':>17}")
    n_bytes = sum(f["size"] for f in files.values())
    if quick:
        print("sizes only; without --quick the contents are compared")
    else:
        rate = n_bytes / max(seconds, 1e-9)
        print(f"{_size(n_bytes)} read in {seconds:.1f} s, {_size(rate)}/s on {len(os.sched_getaffinity(0))} cores")
    wrong |= {m["name"]: (f"not collected: {m['problem']}", m["remedy"]) for m in manifest["missing"]}
    _show(wrong)
    print("sound" if not wrong else f"{len(wrong)} things are wrong", "\n" + usage(folder, manifest), sep="")
    return 1 if wrong else 0


def _machine(manifest: dict) -> list[tuple[str, str, str]]:
    """What the wheels are for, and what this machine has."""
    if not any(name.endswith(".whl") for name in manifest["files"]):
        return []
    facts = [("python", manifest["python"], HERE), ("machine", manifest["machine"], platform.machine())]
    return [*facts, ("glibc", manifest["glibc"], platform.libc_ver()[1])]


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.1f} GB"


def _show(wrong: dict[str, tuple[str, str]]) -> None:
    for name, (what, remedy) in wrong.items():
        print(f"  {name}: {what}\n    {remedy}")


def usage(folder: Path, manifest: dict) -> str:
    """The words that make a run use the bundle where it lies now."""
    where = folder.resolve()
    text = (where / "inputs/overrides.txt").read_text() if (where / "inputs/overrides.txt").is_file() else ""
    copies = text.replace(BUNDLE, str(where)).splitlines()
    ours = {word.partition("=")[0] for word in copies}
    given = [word for word in manifest["overrides"] if word.partition("=")[0] not in ours]
    return f"use it with SAIDPO_BUNDLE={shlex.quote(str(where))} and the overrides\n  {shlex.join([*given, *copies])}"


def install(folder: Path, venv: Path) -> int:
    """A virtual environment with all of wheels/, and nothing from elsewhere."""
    manifest = read_manifest(folder)
    wrong = damage(folder, manifest["files"], quick=True) if manifest else {}
    if manifest is None or wrong:
        raise BundleError(
            f"{folder} is not sound ({next(iter(wrong.items()), 'no manifest')}): tools/bundle.sh --verify {folder}"
        )
    wheels = sorted(map(str, (folder / "wheels").glob("*.whl")))
    if not wheels:
        raise BundleError(f"{folder} was made with --no-wheels: collect it without, or install from elsewhere")
    for name, made_for, here in _machine(manifest):
        if name != "glibc" and made_for != here:
            raise BundleError(
                f"its wheels are for {name} {made_for}, this is {here}: set PYTHON=/path/to/python{manifest['python']}"
            )
    # Debian without python3-venv lacks ensurepip: then this Python's pip serves, as in tools/setup.sh.
    made = subprocess.run([sys.executable, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode != 0:
        made = subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], capture_output=True, text=True)
    if made.returncode != 0:
        raise BundleError(f"no environment could be made at {venv}: {made.stderr.strip() or made.stdout.strip()}")
    python = [str(venv / "bin/python"), "-m", "pip"]
    if not (venv / "bin/pip").exists():
        python = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python")]
    # --no-deps: wheels/ was resolved when it was collected; some of it only ships files (see `_wheels`).
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    done = subprocess.run([*python, "install", *options, *wheels], env=_without_pip_settings())
    if done.returncode != 0:
        raise BundleError(f"pip could not install {folder}/wheels; its words stand above")
    lacking = _lacking(venv / "bin/python")
    _show({name: ("is needed, and not in wheels/", "see what --verify says was not collected") for name in lacking})
    where = shlex.quote(str(venv.resolve() / "bin/python"))
    print(f"{len(wheels)} packages in {venv}\n{usage(folder, manifest)}\nand SAIDPO_PYTHON={where}")
    return 1 if lacking else 0


def _without_pip_settings() -> dict[str, str]:
    """No index, constraint or folder that the user's own settings name takes part."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith("PIP_")}, "PIP_CONFIG_FILE": os.devnull}


def _lacking(python: Path) -> list[str]:
    """What the installed project requires, directly or not, and is not there: `pip check` would also ask for what
    the packages that only ship files require.
    """
    code = """
import importlib.metadata as metadata, re
seen, todo = set(), ["hpc_saidpo"]
while todo:
    name = todo.pop()
    if name in seen: continue
    seen.add(name)
    try: required = metadata.requires(name) or []
    except metadata.PackageNotFoundError: print(name); continue
    todo += [re.match(r"[\\w.-]+", r)[0] for r in required if ";" not in r]
"""
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()


# ---- where there is internet


def collect(asked: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Fill the folder; what cannot be had is named, and does not stop the rest. 0 is complete."""
    folder = asked.folder.resolve()
    foreign = {p.name for p in folder.glob("*")} - {"wheels", "huggingface", "inputs", MANIFEST, f"{MANIFEST}.part"}
    if foreign:
        raise BundleError(f"{folder} holds other things ({', '.join(sorted(foreign)[:3])}): name a folder of its own")
    config = _compose(overrides)  # before the manifest goes: a typo shall not cost a bundle
    from hpc_saidpo import inputs

    folder.mkdir(parents=True, exist_ok=True)
    before = read_manifest(folder)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name in damage(folder, before["files"]) if before else ():
        (folder / name).unlink(missing_ok=True)  # so that it is fetched again
    missing: list[dict[str, str]] = []
    _inputs(folder, config, inputs.of(config), missing)
    cuda = None
    if not asked.no_wheels:
        cuda = _wheels(folder, asked, config, missing)
    facts = {
        "python": asked.python, "machine": platform.machine(), "glibc": f"2.{_glibc(folder / 'wheels')}",
        "cuda": cuda, "overrides": list(overrides), "missing": missing,
    }  # fmt: skip
    manifest = write_manifest(folder, facts)
    size = _size(sum(f["size"] for f in manifest["files"].values()))
    print(f"{folder}: {len(manifest['files'])} files, {size}\n{usage(folder, manifest)}")
    if missing:
        print("bundle: NOT COMPLETE:", file=sys.stderr)
    for m in missing:
        print(f"  {m['name']}: {m['problem']}\n    {m['remedy']}", file=sys.stderr)
    return 1 if missing else 0


def _compose(overrides: Sequence[str]):
    sys.path.insert(0, str(HOME))
    # Read at import: collecting is the one thing here that goes online; seconds rather than minutes where it cannot.
    os.environ.update(HF_HUB_OFFLINE="0", HF_HUB_ETAG_TIMEOUT="10", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    try:
        from hydra import compose, initialize_config_dir
        from hydra.errors import HydraException

        from hpc_saidpo import config as configuration
        from hpc_saidpo.records import RunError
    except ImportError as error:
        raise BundleError(
            f"{sys.executable} lacks {error.name}: run tools/setup.sh, or set PYTHON=... to one that has the project"
        ) from error
    try:
        configuration.check_overrides(overrides)
        with initialize_config_dir(str(configuration.conf_folder()), version_base="1.3"):
            return configuration.build(compose("config", overrides=list(overrides)))[0]
    except (RunError, HydraException) as error:
        raise BundleError(f"the overrides behind --: {error}") from error


def _inputs(folder: Path, config, found: Iterable, missing: list[dict[str, str]]) -> None:
    """Models, encoder and question files; inputs/overrides.txt, which makes a run use them."""
    copies: dict[str, dict[str, str]] = {}
    for wanted in found:
        print(f"  {wanted.key}={wanted.value}", flush=True)
        name = f"{wanted.key}={wanted.value}"
        if wanted.value.startswith("pkg://"):
            continue  # in wheels/
        source = Path(wanted.value)
        if source.exists():
            if wanted.problem:
                missing.append({"name": name, "problem": wanted.problem, "remedy": "mend it, and collect again"})
            place = f"inputs/{wanted.key}/" + re.sub(r"[^\w.+-]", "_", Path(os.path.abspath(source)).name)
            if place in copies.get(wanted.key, {}).values():
                raise BundleError(f"{name}: two of {wanted.key} are called {source.name}: rename one")
            copies.setdefault(wanted.key, {})[wanted.value] = place
            _copy(source, folder / place, _model_files(source))
        elif wanted.kind != "questions" and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", wanted.value):
            problem = _hub(folder / "huggingface/hub", wanted.value, wanted.path if not wanted.problem else "")
            if problem:
                remedy = (
                    "try where huggingface.co can be reached (a mirror: HF_ENDPOINT=https://...; a gated model: "
                    f"hf auth login), or download it elsewhere and give {wanted.key}=/folder/with/it"
                )
                missing.append({"name": name, "problem": problem, "remedy": remedy})
        else:
            missing.append({"name": name, "problem": wanted.problem, "remedy": f"give a {wanted.key} that is here"})
    lines = []
    for key, places in copies.items():
        group, _, field = key.partition(".")
        value = getattr(getattr(config, group), field)
        if isinstance(value, str):
            lines.append(f"{key}={BUNDLE}/{places[value]}")
        else:  # a list: what is no file in it (`held_out`) stays as it is
            lines.append(f"{key}=[{','.join(f'{BUNDLE}/{places[v]}' if v in places else v for v in value)}]")
    (folder / "inputs").mkdir(exist_ok=True)
    (folder / "inputs/overrides.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _wanted(names: Iterable[str]) -> list[str]:
    """Of a model's files, those a run reads: not the same weights in other forms."""
    names = [n for n in names if not any(fnmatch.fnmatch(n, p) for p in DUPLICATES) and not n.startswith(".")]
    patterns = MODEL_FILES if fnmatch.filter(names, "*.safetensors") else (*MODEL_FILES, "*.bin")
    return [n for n in names if any(fnmatch.fnmatch(n, p) for p in patterns)]


def _model_files(source: Path) -> list[str]:
    """Of a folder; a file (questions, GGUF) is itself: the empty name."""
    if source.is_file():
        return [""]
    return _wanted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file())


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    """Make the target hold these files and no others; links become files, what is there already stays."""
    for name in names:
        one, copy = source / name if name else source, target / name if name else target
        if copy.is_file() and copy.stat().st_size == one.stat().st_size and sha256(copy) == sha256(one):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_name(f"{copy.name}.part")
        shutil.copyfile(one, partial)
        partial.replace(copy)
    for stale in {p for p in target.rglob("*") if p.is_file()} - {target / name for name in names}:
        stale.unlink()


def _hub(cache: Path, name: str, cached: str) -> str:
    """Fetch a model from the Hub, or copy it from this user's cache where that fails. Returns the problem, or "".

    Args:
        cached: the snapshot in this user's cache; "" when there is none, or not all of it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # Asked once and first: the later requests are tried again for half a minute where nothing answers.
        about = HfApi().model_info(name, files_metadata=True, timeout=10)
        wanted = _wanted(s.rfilename for s in about.siblings)
        print(
            f"    {_size(sum(s.size or 0 for s in about.siblings if s.rfilename in wanted))} from the Hub", flush=True
        )
        snapshot = Path(snapshot_download(name, revision=about.sha, cache_dir=cache, allow_patterns=wanted))
    except (OSError, *HfHubHTTPError.__bases__) as error:  # the bases: those of the HTTP library it is built on
        if not cached:
            return f"could not be fetched from the Hub ({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        print("    the Hub could not be reached: copied from the local Hub cache", flush=True)
        snapshot = cache / Path(cached).parent.parent.name / "snapshots" / Path(cached).name
        _copy(Path(cached), snapshot, _model_files(Path(cached)))
    _flatten(snapshot.parent.parent)
    # A revision that was asked for by its hash leaves no `main`, under which a name without revision is looked up.
    (snapshot.parent.parent / "refs").mkdir(exist_ok=True)
    (snapshot.parent.parent / "refs/main").write_text(snapshot.name)
    return ""


def _flatten(model: Path) -> None:
    """Put files in the place of links to blobs: links do not survive every way of copying, or come out twice."""
    moved: dict[Path, Path] = {}
    for link in [p for p in (model / "snapshots").rglob("*") if p.is_symlink()]:
        blob = link.resolve()
        if blob in moved:
            link.unlink()
            shutil.copyfile(moved[blob], link)
        else:
            blob.replace(link)
            moved[blob] = link
    shutil.rmtree(model / "blobs", ignore_errors=True)


# ---- wheels


def _wheels(folder: Path, asked: argparse.Namespace, config, missing: list[dict[str, str]]) -> str | None:
    """Fill wheels/. Returns which build of torch it holds; None when that is unknown."""
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        pip = _Pip(wheels, asked.python, Path(scratch), missing)
        return pip.fill(asked.cuda, [*asked.extra, *_extras(config)], _shipping(config))


def _extras(config) -> list[str]:
    """The extras of setup.py that a configuration cannot do without."""
    made_from = config.pool.kind == "reasoning_gym" or config.policy.path.endswith(".gguf")
    on_gpu = config.clusters.backend == "gpu" or config.policy.attention == "flash_attention_2"
    return ["demo"] * made_from + ["gpu"] * on_gpu


def _shipping(config) -> list[str]:
    """The packages that ship the models named pkg://."""
    from importlib.metadata import packages_distributions

    named = [config.policy.path, *([config.clusters.encoder] if config.clusters.n > 1 else [])]
    modules = {n.removeprefix("pkg://").partition("/")[0] for n in named if n.startswith("pkg://")} - {"hpc_saidpo"}
    known = packages_distributions()
    return sorted({known.get(m, [m.replace("_", "-")])[0] for m in modules})


class _Pip:
    """pip for the compute nodes' Python, which need not be the one that runs here."""

    def __init__(self, wheels: Path, python: str, scratch: Path, missing: list[dict[str, str]]):
        self.wheels, self.python, self.scratch, self.missing = wheels, python, scratch, missing
        self.target: list[str] = []
        if python != HERE:
            # As new a glibc as here: login and compute nodes run the same system.
            newest = _version(platform.libc_ver()[1] or "2.28")[1]
            tags = [*(f"manylinux_2_{n}" for n in range(newest, 4, -1)), *OLD_MANYLINUX, "linux"]
            self.target = ["--python-version", python, "--implementation", "cp"]
            self.target += [f"--platform={tag}_{platform.machine()}" for tag in tags]
        self.links = ["--find-links", str(wheels), "--find-links", str(scratch / "placeholders")]
        (scratch / "placeholders").mkdir()

    def fill(self, cuda: str | None, extras: Sequence[str], shipping: Sequence[str]) -> str | None:
        project = self._project()
        if project is None:
            return None
        required = [*_requirements(project, extras, self.python), *([] if "MPI4PY_LIBMPI" in os.environ else ["mpich"])]
        torch = self._torch(cuda) if cuda else []
        required = self._with_wheels(required)
        resolved = self._resolve([*required, *torch])
        if resolved is None:
            return None
        found = {_canonical(i["metadata"]["name"]): i["metadata"]["version"] for i in resolved}
        absent = {path.name.split("-")[0] for path in (self.scratch / "placeholders").iterdir()}
        print(f"  wheels: {len(found)} packages for Python {self.python}", flush=True)
        self._download([f"{n}=={v}" for n, v in found.items() if n.replace("-", "_") not in absent])
        for name in shipping:  # without dependencies: those would only serve to run the models in other ways
            self._download([name])
        _drop_other_versions(self.wheels, {**found, _canonical(project.name.split("-")[0]): project.name.split("-")[1]})
        got = _torch_build(found)
        if cuda and cuda != got:
            problem = f"this build could not be had from {TORCH_INDEX}{cuda}; wheels/ holds the one for {got}"
            self._miss("torch " + cuda, problem, "download its wheel elsewhere into wheels/, and collect again")
        return got

    def _run(self, command: str, *words: str, timeout_s: float = 7200) -> subprocess.CompletedProcess:
        network = ["--retries", "1", "--timeout", "15", "--disable-pip-version-check", "--quiet"]
        line = [sys.executable, "-m", "pip", command, *network, *words]
        try:
            return subprocess.run(line, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(line, 1, "", f"ERROR: not done after {timeout_s:.0f} s")

    def _miss(self, name: str, problem: str, remedy: str) -> None:
        self.missing.append({"name": name, "problem": problem, "remedy": remedy})

    def _unreachable(self, name: str, done: subprocess.CompletedProcess) -> None:
        remedy = (
            "try again, or name one that can be reached: PIP_INDEX_URL=https://..., PIP_FIND_LINKS=/folder/of/wheels"
        )
        self._miss(name, _words(done), remedy)

    def _project(self) -> Path | None:
        # From a copy: setuptools leaves build/ behind, and would take into the wheel what an older one holds.
        source = self.scratch / "source"
        skip = shutil.ignore_patterns("__pycache__")
        for part in ("hpc_saidpo", "conf"):
            shutil.copytree(HOME / part, source / part, ignore=skip)
        for part in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(HOME / part, source)
        done = self._run("wheel", "--no-deps", "-w", str(self.scratch / "project"), str(source))
        if done.returncode != 0:
            self._unreachable("the wheels", done)
            return None
        built = next((self.scratch / "project").glob("*.whl"))
        return Path(shutil.copy(built, self.wheels))

    def _torch(self, cuda: str) -> list[str]:
        """torch from its own index, which has a build for every CUDA; [] where that cannot be reached."""
        words = ["--no-deps", "--only-binary=:all:", *self.target, *self.links, "-d", str(self.wheels)]
        index = f"{TORCH_INDEX}{cuda}"
        # The version is tools/setup.sh's; without one, a newer torch of another index would be preferred.
        pin = re.search(r"^torch==[\d.]+", (HOME / "tools/constraints-cpu.txt").read_text(), re.MULTILINE)[0]
        done = self._run("download", *words, "--index-url", index, f"{pin}+{cuda}")
        had = [p.name.split("-")[1] for p in self.wheels.glob(f"torch-*+{cuda}-*.whl")]
        if not had:
            return []
        if done.returncode == 0 and "connection broken" not in done.stderr:
            self.links += ["--extra-index-url", index]  # its CUDA libraries
        return [f"torch=={max(had, key=_version)}"]

    def _with_wheels(self, required: list[str]) -> list[str]:
        """The requirements without those that neither come as a wheel nor can be built here."""
        required = list(required)
        words = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", *self.links]
        while required:
            done = self._run("install", *words, *self._elsewhere(), *required)
            lacking = _not_found(done)
            index = next((i for i, r in enumerate(required) if _name(r) == lacking), None)
            if done.returncode == 0 or index is None or "connection broken" in done.stderr:
                return required  # any other trouble is named by what follows
            if not self._build(required[index]):
                required.pop(index)
        return required

    def _elsewhere(self) -> list[str]:
        # pip resolves for another Python only if it is also told to install into some folder; --dry-run never does.
        return [*self.target, "--target", str(self.scratch / "never")] if self.target else []

    def _resolve(self, required: list[str]) -> list[dict] | None:
        """pip's report of all that the requirements need; what comes only as sources is built on the way."""
        resolved = self._report(required, [])
        if resolved is None:
            return None
        for item in resolved:
            name, version = item["metadata"]["name"], item["metadata"]["version"]
            if not item["download_info"]["url"].endswith(".whl") and not self._build(f"{name}=={version}"):
                self._placeholder(name, version)
        only = ["--only-binary=:all:", *self._elsewhere()]
        for _ in range(5):
            resolved = self._report(required, only)
            lost = _lost_to_markers(resolved or [], self.python)
            if not lost:
                break
            required = [*required, *lost]
        return resolved

    def _report(self, required: list[str], words: list[str]) -> list[dict] | None:
        report = self.scratch / "report.json"
        done = self._run(
            "install", "--dry-run", "--ignore-installed", "--report", str(report), *self.links, *words, *required
        )
        if done.returncode != 0:
            self._unreachable("the wheels", done)
            return None
        return json.loads(report.read_text())["install"]

    def _build(self, required: str) -> bool:
        """Build a wheel from sources, if pip can, and it fits the compute nodes' Python."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as into:
            done = self._run("wheel", "--no-deps", *self.links, "-w", into, required, timeout_s=300)
            built = list(Path(into).glob("*.whl"))
            if done.returncode == 0 and built and (not self.target or built[0].name.endswith("-none-any.whl")):
                shutil.copy(built[0], self.wheels)
                return True
        why = "its build is for this Python only" if done.returncode == 0 else _words(done)
        self._miss(
            required,
            f"there is no wheel for Python {self.python} on {platform.machine()}, and none could be made here ({why})",
            f"build it once with that Python, on a GPU node if it compiles for one: pip wheel '{required}' --no-deps "
            f"--no-build-isolation -w {self.wheels}; then collect again",
        )
        return False

    def _placeholder(self, name: str, version: str) -> None:
        """An empty package for the resolution alone: one that cannot be had shall not keep all others away."""
        stem = f"{_canonical(name).replace('-', '_')}-{version}"
        with zipfile.ZipFile(self.scratch / "placeholders" / f"{stem}-py3-none-any.whl", "w") as file:
            file.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr(f"{stem}.dist-info/RECORD", "")

    def _download(self, pinned: list[str]) -> None:
        words = ["--no-deps", "--only-binary=:all:", *self.target, *self.links, "-d", str(self.wheels)]
        done = self._run("download", *words, *pinned)
        if done.returncode != 0:
            self._unreachable(pinned[0] if len(pinned) == 1 else "the wheels", done)


def _words(done: subprocess.CompletedProcess) -> str:
    """What pip says went wrong, in one line."""
    if "connection broken" in done.stderr:
        return "the package index could not be reached"
    said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return said[-1] if said else done.stderr.strip()[-200:]


def _not_found(done: subprocess.CompletedProcess) -> str | None:
    found = re.search(r"No matching distribution found for ([\w.-]+)", done.stderr)
    return _canonical(found[1]) if found else None


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(requirement: str) -> str:
    return _canonical(re.match(r"[\w.-]+", requirement)[0])


def _applies(requirement: str, extras: Iterable[str], python: str) -> str | None:
    """A requirement without its marker, if it holds there."""
    from packaging.requirements import Requirement

    parsed = Requirement(requirement)
    where = {"python_version": python, "python_full_version": f"{python}.0"}
    if parsed.marker and not any(parsed.marker.evaluate({**where, "extra": extra}) for extra in ("", *extras)):
        return None
    parsed.marker = None
    return str(parsed)


def _requirements(wheel: Path, extras: Sequence[str], python: str) -> list[str]:
    with zipfile.ZipFile(wheel) as file:
        name = next(n for n in file.namelist() if n.endswith(".dist-info/METADATA"))
        about = email.message_from_bytes(file.read(name))
    unknown = set(extras) - set(about.get_all("Provides-Extra", []))
    if unknown:
        raise BundleError(f"--extra {', '.join(unknown)}: there are {', '.join(about.get_all('Provides-Extra', []))}")
    return [held for r in about.get_all("Requires-Dist", []) if (held := _applies(r, extras, python))]


def _lost_to_markers(resolved: list[dict], python: str) -> list[str]:
    """What is required there but was not resolved: pip takes markers to be about the Python that it runs on."""
    if python == HERE:
        return []
    there = {_canonical(i["metadata"]["name"]) for i in resolved}
    required = [r for i in resolved for r in i["metadata"].get("requires_dist", [])]
    return [held for r in required if (held := _applies(r, [], python)) and _name(held) not in there]


def _torch_build(found: dict[str, str]) -> str:
    """cpu or cu130: from torch's own version, or from the CUDA runtime that comes with it."""
    _, _, label = found["torch"].partition("+")
    runtime = next((v for n, v in found.items() if n.startswith("nvidia-cuda-runtime")), None)
    return label or ("cu" + "".join(runtime.split(".")[:2]) if runtime else "cpu")


def _drop_other_versions(wheels: Path, found: dict[str, str]) -> None:
    """Of an older collecting: two versions of one package cannot be installed."""
    for path in wheels.glob("*.whl"):
        name, version = path.name.split("-")[:2]
        if found.get(_canonical(name), version) != version:
            path.unlink()


def _glibc(wheels: Path) -> int:
    """The oldest glibc 2.x that all wheels run with."""
    needed = [0]
    for path in wheels.glob("*.whl"):
        tags = path.stem.split("-")[-1]
        with contextlib.suppress(ValueError):  # of any platform
            old = [n for tag, n in OLD_MANYLINUX.items() if f"{tag}_" in tags]
            needed.append(min([*old, *(int(n) for n in re.findall(r"manylinux_2_(\d+)", tags))]))
    return max(needed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
