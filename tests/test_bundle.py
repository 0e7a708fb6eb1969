"""tools/bundle.sh: what it collects can be moved, checked and used without internet; what is wrong is named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MICRO, user_environment
from test_check import DAMAGE

from hpc_saidpo import policy
from hpc_saidpo.config import conf_folder

HOME = conf_folder().parent
WEIGHTS = "inputs/policy.path/micro/model.safetensors"
WRITE_MANIFEST = """
import sys, json, pathlib
sys.path.insert(0, sys.argv[1])
import bundle
folder = pathlib.Path(sys.argv[2])
bundle.write_manifest(folder, json.loads((folder / "MANIFEST.json").read_text()))
"""
OFFLINE = ("unshare", "--user", "--net")


def bundle(*words, inside=(), **variables):
    env = user_environment(PYTHON=sys.executable, PYTHONPATH=str(HOME), **variables)
    line = [*inside, HOME / "tools/bundle.sh", *words]
    return subprocess.run(list(map(str, line)), env=env, capture_output=True, text=True, timeout=120)


def can_be_offline() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*OFFLINE, "true"], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A model, a pool and a benchmark as a user has them, beside what a run does not read."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copytree(MICRO, folder / "micro")
    (folder / "micro/pytorch_model.bin").write_bytes(b"the same weights")
    (folder / "micro/checkpoint-5").mkdir()
    (folder / "micro/checkpoint-5/model.safetensors").write_bytes(b"older weights")
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1), "tags": ["addition"]} for i in range(20)]
    for name in ("pool", "benchmark"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def words(sources):
    return (
        "--no-wheels", "--", "experiment=tiny", "pool=jsonl", f"pool.path={sources}/pool.jsonl", "pool.held_out=5",
        f"policy.path={sources}/micro", f"evaluate.benchmarks=[held_out,{sources}/benchmark.jsonl]",
    )  # fmt: skip


@pytest.fixture(scope="module")
def collected(tmp_path_factory, words):
    folder = tmp_path_factory.mktemp("collected") / "bundle"
    done = bundle(folder, *words)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(collected, tmp_path):
    """The bundle, moved."""
    return shutil.copytree(collected, tmp_path / "elsewhere")


def test_a_moved_bundle_is_sound_and_gives_overrides_for_where_it_lies(copy, sources):
    done = bundle("--verify", copy)
    assert done.returncode == 0 and "sound" in done.stdout, done.stdout
    for key in ("policy.path=", "pool.path=", "evaluate.benchmarks=[held_out,"):
        assert f"{key}{copy}/inputs/" in done.stdout
    assert str(sources) not in done.stdout
    assert not list(copy.rglob("*.bin")) and not list(copy.rglob("checkpoint-5"))
    assert set(json.loads((copy / "MANIFEST.json").read_text())["files"]) == {
        str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file() and p.name != "MANIFEST.json"
    }


@pytest.mark.skipif(not can_be_offline(), reason="no network namespaces here")
def test_it_is_checked_by_python_alone_and_without_network(copy):
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    line = [*OFFLINE, HOME / "tools/bundle.sh", "--verify", copy]
    bare = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    done = subprocess.run(list(map(str, line)), cwd=copy, env=bare, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


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
    done = bundle(copy, *words)
    assert done.returncode == 0 and bundle("--verify", copy).returncode == 0, done.stderr
    assert {p for p, t in times().items() if before[p] != t} == {copy / WEIGHTS}


def test_a_folder_with_other_things_is_left_alone(tmp_path, words):
    (tmp_path / "thesis.tex").write_text("")
    done = bundle(tmp_path, *words)
    assert done.returncode == 2 and "thesis.tex" in done.stderr and os.listdir(tmp_path) == ["thesis.tex"]


def test_what_cannot_be_fetched_is_named_and_the_rest_collected(tmp_path, sources):
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
    code = "from hpc_saidpo import policy; print(policy.locate('acme/micro'))"
    env = user_environment(HF_HOME=str(folder / "huggingface"), PYTHONPATH=str(HOME))
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    there = found.stdout.strip()
    assert there.startswith(str(folder)) and policy.fingerprint(there) == policy.fingerprint(MICRO)


@pytest.mark.e2e
def test_wheels_alone_make_an_environment(copy, tmp_path):
    """With the project's own wheel only: what else it needs is named."""
    source = tmp_path / "source"
    for part in ("hpc_saidpo", "conf"):
        shutil.copytree(HOME / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(HOME / part, source)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", copy / "wheels"]
    subprocess.run([*build, source], check=True, capture_output=True)
    manifest = copy / "MANIFEST.json"
    facts = json.loads(manifest.read_text())
    subprocess.run([sys.executable, "-c", WRITE_MANIFEST, HOME / "tools", copy], check=True)
    done = bundle("--install", copy, tmp_path / "venv", inside=OFFLINE if can_be_offline() else ())
    assert done.returncode == 1 and "torch: is needed, and not in wheels/" in done.stdout, done.stdout + done.stderr
    env = {k: v for k, v in user_environment().items() if k != "PYTHONPATH"}
    line = [tmp_path / "venv/bin/python", "-c", "import importlib.metadata as m; print(m.version('hpc_saidpo'))"]
    assert subprocess.run(line, env=env, capture_output=True, check=True).stdout.strip() == b"0.1.0"
    manifest.write_text(manifest.read_text().replace(f'"python": "{facts["python"]}"', '"python": "3.99"'))
    other = bundle("--verify", copy)
    assert other.returncode == 1 and "wheels/ is for 3.99" in other.stdout
    assert "wheels are for python 3.99" in bundle("--install", copy, tmp_path / "other").stderr
