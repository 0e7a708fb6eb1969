"""The verbs doctor and plan as a user starts them."""

import json
import re

import pytest
import torch
from support.program import start

from hpc_saidpo.doctor.device.examine import CHECKS
from hpc_saidpo.doctor.device.result import PASS, SKIP

NO_GPU = {
    "flash_attention": "there is no GPU",
    "cuda_graph": "there are no CUDA graphs on a cpu",
    "cuml": "cuml",
    "cupy": "cupy",
    "vllm": "vllm",
}
# Runs main() with each line of words, then prints whether torch has been imported.
WITHOUT_TORCH = """
import contextlib, io, sys
from hpc_saidpo.cli.main import main
for line in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
        with contextlib.suppress(SystemExit):
            main(line.split())
    print("torch" in sys.modules, stderr.getvalue().strip()[:60])
"""


def test_what_is_missing_is_named_and_nothing_else_is_stopped(tmp_path):
    root = tmp_path / "file" / "runs"
    overrides = ("experiment=paper_qwen7b", f"pool.path={tmp_path / 'pool.jsonl'}", f"run.root={root}",
                 "policy.attention=flash_attention_2", "clusters.backend=gpu")  # fmt: skip
    (tmp_path / "file").write_text("")
    done = start("doctor", *overrides, "--json", str(tmp_path / "findings.json"))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    findings = json.loads((tmp_path / "findings.json").read_text())
    failed = {name for name, f in findings.items() if f["state"] == "failure"}
    assert failed == {"run folder", "pool.path", "policy.path", "attention", "cuML and CuPy"}
    assert all(findings[name]["remedy"] for name in failed)
    assert re.search(r"\d+ ok, \d+ warnings?, 5 failures", done.stdout)
    assert "failure  pool.path" in done.stdout and "no such file" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("experiment=tiny",), "doctor --gpu takes no overrides (experiment=tiny)"),
        (("--json", "no/such/folder/gpu.json"), "--json no/such/folder/gpu.json: cannot be written"),
    ],
)
def test_a_wrong_command_about_one_gpu_is_refused(words, says):
    done = start("doctor", "--gpu", "--device", "cpu", *words)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_gpu_cannot_be_examined_where_there_is_none():
    done = start("doctor", "--gpu")
    assert done.returncode == 2 and "torch sees no GPU" in done.stderr


def test_every_check_of_one_gpu_passes_on_a_cpu_or_says_why_it_cannot_be_made(tmp_path):
    done = start("doctor", "--gpu", "--device", "cpu", "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    stored = json.loads((tmp_path / "gpu.json").read_text())
    states = {key.removesuffix(".state"): value for key, value in stored.items() if key.endswith(".state")}
    assert list(states) == [check.name for check in CHECKS]
    assert {name for name, state in states.items() if state != PASS} == NO_GPU.keys()
    assert all(states[name] == SKIP and says in stored[f"{name}.text"] for name, says in NO_GPU.items())
    assert f"{len(CHECKS) - len(NO_GPU)} PASS, 0 FAIL, {len(NO_GPU)} SKIP in " in done.stdout
    assert stored["machine"]["torch"] == str(torch.__version__)
    assert stored["dpo_round.float32_weights"] < 1e-6
    assert stored["rollouts.tokens_per_s"] > 0 and stored["dpo_step.flops_utilisation"] > 0
    assert not list(tmp_path.glob("*.tmp"))


def test_a_check_of_one_gpu_without_time_is_reported_and_stored(tmp_path):
    done = start("doctor", "--gpu", "--device", "cpu", "--minutes", "0", "--json", str(tmp_path / "gpu.json"))
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "gpu.json").read_text())
    states = [value for key, value in stored.items() if key.endswith(".state")]
    assert set(states) == {"SKIP"} and f"0 PASS, 0 FAIL, {len(states)} SKIP in" in done.stdout
    assert "SKIP  attention" in done.stdout and "no time left" in stored["attention.text"]


def test_help_and_wrong_overrides_do_not_wait_for_torch():
    wrong = ("plan Qwen2.5-7B dpo.gamma=1", "doctor experiment=tiny dpo.gamma=1", "plan")
    done = start("plan --help", "doctor --help", *wrong, program=("-c", WITHOUT_TORCH))
    assert done.returncode == 0, done.stderr
    unknown = "unknown key 'dpo.gamma'"
    for line, expected in zip(done.stdout.splitlines(), ["", "", unknown, unknown, "no model: name one"], strict=True):
        assert line.startswith("False") and expected in line
