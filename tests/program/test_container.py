"""tools/apptainer.def: nothing here can build it, but its lines can be tried where they are."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from support.program import BIN, user_environment, warm

HOME = Path(__file__).parents[2]
TEXT = (HOME / "tools" / "apptainer.def").read_text()
SECTIONS = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", TEXT, re.M | re.S))
INSIDE = "/opt/hpc_saidpo"


def test_it_has_the_sections_of_a_definition():
    assert set(SECTIONS) == {"setup", "post", "environment", "runscript", "test"}
    assert re.match(r"Bootstrap: docker\nFrom: nvidia/cuda:13\.\S+-devel-\S+\n", TEXT)
    for body in SECTIONS.values():
        assert subprocess.run(["sh", "-n", "-c", body]).returncode == 0


def test_the_jobs_look_for_python_where_it_is_installed():
    assert f"{INSIDE}/.venv/bin/python" in (HOME / "slurm" / "env.sh").read_text()


def test_the_checkout_arrives_whole(tmp_path):
    subprocess.run(["bash", "-euo", "pipefail", "-c", SECTIONS["setup"]], cwd=HOME, check=True,
                   env=user_environment(APPTAINER_ROOTFS=str(tmp_path)))  # fmt: skip
    there = tmp_path / INSIDE.lstrip("/")
    assert (there / "tools" / "setup.sh").exists() and (
        there / "hpc_saidpo" / "data" / "micro_llama" / "config.json"
    ).exists()
    assert not (there / ".venv").exists() and not (there / ".git").exists()


def test_the_install_lines_are_those_of_the_set_up():
    """CI has run tools/setup.sh itself; the extras that the image adds to it must exist."""
    extras = re.search(r"EXTRAS=(\S+) tools/setup.sh", SECTIONS["post"])[1].split(",")
    declared = re.findall(r'^ {8}"(\w+)": \[', (HOME / "setup.py").read_text(), re.M)
    assert set(extras) <= set(declared) and "gpu" in extras
    assert "${EXTRAS:-demo,test}" in (HOME / "tools" / "setup.sh").read_text()
    # flash-attn is built against the torch that is there, so it comes after, and not by an extra of setup.sh's.
    assert SECTIONS["post"].index("tools/setup.sh") < SECTIONS["post"].index("flash-attn")


@pytest.mark.e2e
def test_the_images_own_test_passes_on_this_installation(tmp_path):
    lines = (
        SECTIONS["test"].replace(f"cd {INSIDE}", f"cd {HOME}").replace("/tmp/hpc_saidpo_test", str(tmp_path / "runs"))
    )
    lines = lines.replace(".venv/bin/mpiexec", str(BIN / "mpiexec")).replace(
        ".venv/bin/python", shlex.join(warm().command())
    )
    done = subprocess.run(
        ["sh", "-eu", "-c", lines], env=user_environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout and "stopped after probe of iteration 0" in done.stdout
    assert not (tmp_path / "runs").exists()
