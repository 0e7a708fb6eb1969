"""The estimated memory of a DPO round against the measured memory of real steps."""

import json

import pytest
from support.program import start

TOOL = ("tools/bench/bench_memory.py",)


@pytest.mark.long
def test_an_estimate_is_within_a_quarter_of_what_real_steps_take(tmp_path):
    done = start("checkpointing", "--json", str(tmp_path / "memory.json"), program=TOOL, timeout_s=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "memory.json").read_text())
    (ratio,) = (value for name, value in figures.items() if name.endswith("measured / planned"))
    assert 0.75 <= ratio <= 1.25, done.stdout


def test_an_unknown_case_is_refused():
    done = start("typo", program=TOOL)
    assert done.returncode == 2 and "no case typo: there are all weights, " in done.stderr
