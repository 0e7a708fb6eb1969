"""TRL's GRPOTrainer on the dynamic sampler: the example, as it is started by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import user_environment

TOOL = Path(__file__).parents[2] / "tools" / "example_grpo.py"


@pytest.mark.e2e
@pytest.mark.long
def test_grpo_trains_on_drawn_questions(tmp_path):
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(TOOL), "--json", str(figures)],
        env=user_environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 steps by rule error" in done.stdout
    found = json.loads(figures.read_text())
    assert found["steps"] == 20 and found["groups_graded"] == 160
    assert found["usable_share_last_quarter"] > found["usable_share_first_quarter"]
    weight = found["cluster_weight"]
    hard, trained = ([w for name, w in weight.items() if name.endswith(span)] for span in ("/hard", "/trained"))
    assert max(hard) < 1 < max(trained)  # hopeless questions are left alone
