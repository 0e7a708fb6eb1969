"""The checks of `doctor --gpu` on a device that refuses tensors of the CPU, and planted device mistakes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pretend_device
import pytest
from support.needs import COMPILER, needs_compiler

from hpc_saidpo.doctor.device.examine import CHECKS
from hpc_saidpo.doctor.device.result import FAIL, PASS, SKIP

HOME = Path(__file__).resolve().parents[2]
SKIPPED = {
    "flash_attention": "there is no GPU",
    "cuda_graph": "there are no CUDA graphs on a pretend",
    "cuml": "cuml",
    "cupy": "cupy",
    "collectives": "there is no process group for a pretend",
    "distributed": "there is no process group for a pretend",
    "vllm": "vllm",
}
CASES = ("few rows", "many rows", "a start, top_p and a stop string", "a kernel's stand-in", "graphs")
pytestmark = needs_compiler


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return pretend_device.build(tmp_path_factory.mktemp("pretend"), COMPILER)


def lines_of(program, *arguments, package=HOME):
    """The lines of JSON that a program beside this file prints, with the package in a folder."""
    script = Path(__file__).with_name(program)
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def examined(library, *names, package=HOME):
    """(state, text) of each check, made by the package in a folder."""
    lines = lines_of("examine_pretend.py", library, *names, package=package)
    return {name: (state, text) for name, state, text in lines}


def test_the_host_waits_once_a_step_whatever_the_rows(library):
    """Prompts are read and rows end meanwhile. A graph's step neither waits nor sends; its sizes are few."""
    lines = lines_of("count_waits.py", library)
    assert [name for name, *_ in lines] == list(CASES)
    for name, waits, n_steps, as_on_a_cpu, n_sizes, lengths_differ in lines:
        assert waits.pop("sent") > 0, name  # without waiting
        assert waits == {"to the host": n_steps}, (name, waits)
        assert as_on_a_cpu and lengths_differ, name
        assert 0 < n_sizes < 7 if name == "graphs" else n_sizes == 0, name


def test_every_check_passes_or_says_why_it_cannot_be_made(library):
    results = examined(library)
    assert list(results) == [check.name for check in CHECKS]
    for name, (state, text) in results.items():
        assert state == (SKIP if name in SKIPPED else PASS), (name, text)
        assert SKIPPED.get(name, "") in text


COUNT = "count_waits.py"  # the program that finds a mistake; else it is a check
PLANTED = (
    ("dpo/rows.py", "dtype=torch.bool, device=segment_RT.device)", "log_probabilities"),
    ("dpo/train.py", "dtype=logps_B2.dtype, device=logps_B2.device)", "dpo_round"),
    ("rollouts/engine/kv_cache.py", "torch.arange(n_all, device=self.device)", "engine"),
    ("dpo/rows.py", "dtype=dtype, device=segment_RT.device)", "log_probabilities"),
    ("dpo/arrangement.py", "len(value_N), device=value_N.device)", "dpo_round"),
    ("policy/plain.py", "torch.tensor(list(response), device=all_TV.device)", "dpo_round"),
    ("rollouts/engine/shared.py", "dtype=torch.long, device=policy.device)", "engine"),
    ("rollouts/engine/memory.py", "torch.tensor([ids[:n]], device=policy.device)", "engine"),
    ("rollouts/engine/hf.py", "torch.tensor(ended, device=input_ids.device)", "engine"),
    ("rollouts/engine/kv_cache.py", "self._step.n_rows * n_kv, device=self.device)", "engine"),
    ("rollouts/engine/kv_cache.py", "torch.arange(n, device=self.device)", "engine"),
    ("rollouts/engine/kv_cache.py", "torch.zeros(seen_RT.shape, device=self.device)", "engine"),
    ("rollouts/engine/places.py", "capacity.n_rows, dtype=torch.long, device=device)", COUNT),
    ("rollouts/engine/places.py", "dtype=torch.int32, device=device)", COUNT),
    ("rollouts/engine/kernels.py", "torch.arange(k_cache.shape[1], device=query.device)", COUNT),
)
ALWAYS = 2  # the first ones; the others take a quarter of a minute each


@pytest.mark.parametrize(
    ("file", "right", "check"),
    [*PLANTED[:ALWAYS], *(pytest.param(*row, marks=pytest.mark.long) for row in PLANTED[ALWAYS:])],
)
def test_a_tensor_on_the_wrong_device_is_reported(library, tmp_path, file, right, check):
    shutil.copytree(HOME / "hpc_saidpo", tmp_path / "hpc_saidpo", ignore=shutil.ignore_patterns("__pycache__"))
    source = tmp_path / "hpc_saidpo" / file
    text = source.read_text()
    assert text.count(right) == 1
    source.write_text(text.replace(right, re.sub(r", device=.*", ")", right)))
    if check == COUNT:
        with pytest.raises(AssertionError, match="Expected all tensors to be on the same device"):
            lines_of(COUNT, library, package=tmp_path)
        return
    state, text = examined(library, check, package=tmp_path)[check]
    assert state == FAIL and re.search(
        "Expected all tensors to be on the same device|tried out with|decoded by hf", text
    )
