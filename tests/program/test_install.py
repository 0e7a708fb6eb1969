"""The package as `pip install` installs it: built as a wheel, used in an empty folder, without the checkout."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.program import HOME, user_environment
from support.small_run import SMALL

from hpc_saidpo import __version__

pytestmark = pytest.mark.e2e
SOURCES = ("hpc_saidpo", "conf", "setup.py", "pyproject.toml", "README.md", "LICENSE")
# Parts of a message that names a file of the checkout.
CHECKOUT_ONLY = re.compile(r"tools/|\.sh\b|\.sbatch\b|\bREADME\b(?!\.md)")


def call(*words, folder):
    """Run a command in a folder; the checkout is on no path."""
    environment = {k: v for k, v in user_environment().items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(word) for word in words], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of a new environment: the wheel is installed in it, and it sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("install")
    for name in SOURCES:
        source, copy = HOME / name, folder / "source" / name
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    pip = (sys.executable, "-m", "pip")
    built = call(
        *pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder / "wheel", folder / "source", folder=folder
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "wheel").glob("hpc_saidpo-*.whl")
    shutil.rmtree(folder / "source")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    done = call(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    # A path in a .pth file adds that folder, but does not read the .pth files in it: no editable install takes effect.
    places = (folder / "venv" / "lib").glob("python*/site-packages")
    (next(places) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """The folder in which the user works."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def run(installed, empty):
    done = call(installed / "hpc-saidpo", *SMALL, folder=empty)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held_out before → after" in done.stdout
    return empty / "runs" / "tiny"


def package_of(installed, empty):
    done = call(installed / "python", "-c", "import hpc_saidpo; print(hpc_saidpo.__file__)", folder=empty)
    return Path(done.stdout.strip()).parent


def test_the_package_is_the_installed_one(installed, empty):
    package = package_of(installed, empty)
    assert package.is_relative_to(installed.parent) and HOME not in package.parents
    assert (package / "conf" / "config.yaml").is_file() and (package / "data" / "micro_llama" / "config.json").is_file()
    assert (package / "README.md").is_file() and (package / "conf" / "README.md").is_file()
    for folder, pattern in (("conf", "*.yaml"), ("data", "*.json*")):
        source = HOME / folder if folder == "conf" else HOME / "hpc_saidpo" / folder
        files = [path.relative_to(source) for path in source.rglob(pattern)]
        assert files and not [name for name in files if not (package / folder / name).is_file()]


def test_version_and_help(installed, empty):
    done = call(installed / "hpc-saidpo", "--version", folder=empty)
    assert (done.returncode, done.stdout) == (0, f"hpc_saidpo {__version__}\n"), done.stderr
    overview = call(installed / "hpc-saidpo", "--help", folder=empty)
    as_module = call(installed / "python", "-m", "hpc_saidpo", "--help", folder=empty)
    assert overview.returncode == 0 and overview.stdout == as_module.stdout and "Verbs" in overview.stdout
    settings = call(installed / "hpc-saidpo", "run", "--help", folder=empty)
    assert "experiment=" in settings.stdout and "tiny" in settings.stdout
    assert not os.listdir(empty)


def test_a_run_and_the_verbs_on_its_result(installed, empty, run):
    def verb(*words):
        done = call(installed / "hpc-saidpo", *words, folder=empty)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "; 0 damaged" in verb("verify", run)
    assert "rows of pairs -> pairs.jsonl" in verb(
        "export", "runs/tiny", "--what", "pairs", "--format", "jsonl", "--out", "pairs.jsonl"
    )
    pair = json.loads((empty / "pairs.jsonl").read_text().splitlines()[0])
    explanation = verb("explain", run, "--iteration", str(pair["iteration"]), "--question", pair["question_id"])
    assert "made: " in explanation
    assert "tiny" in verb("compare", "runs") and (empty / "runs" / "sweep" / "sweep.csv").is_file()
    assert sorted(os.listdir(empty)) == ["pairs.jsonl", "runs"]


def literals(path):
    """(line, text) of the string literals of a file; docstrings of programs count, because help shows them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            is_shown = id(node) not in documents or (path.parent.name == "cli" and node.lineno == 1)
            if is_shown:
                yield node.lineno, node.value


def test_messages_name_no_file_that_is_not_installed(installed, empty):
    package = package_of(installed, empty)
    named = [
        f"{path.relative_to(package)}:{line}: {text}"
        for path in sorted(package.rglob("*.py"))
        for line, text in literals(path)
        if CHECKOUT_ONLY.search(text)
    ]
    assert not named, "\n".join(named)
