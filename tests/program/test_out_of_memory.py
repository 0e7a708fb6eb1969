"""Decoding and training in a process that has little memory left."""

import os
import shutil
import subprocess
import sys

import pytest
from support.make import MICRO

LIMIT = """
def limit(n_bytes):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + n_bytes, resource.RLIM_INFINITY))
"""
SHORT_OF_MEMORY = """
import resource, sys, torch
from transformers import LlamaConfig, AutoModelForCausalLM
from hpc_saidpo import settings
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.rollouts.engine import linears
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.settings.rollouts import Sampling
linears.PACKED_SHARE = 0  # packed weights of such a thin layer are many times larger
torch.manual_seed(0)
config = LlamaConfig(vocab_size=150_000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                     intermediate_size=16, eos_token_id=1, pad_token_id=0, bos_token_id=None)
tokenizer = Policy.load(sys.argv[1], settings.Policy(path=sys.argv[1]), torch.device("cpu")).tokenizer
policy = Policy(AutoModelForCausalLM.from_config(config).eval(), tokenizer, torch.device("cpu"), torch.float32, "")
def run():
    made = generate(policy, [[5, 6], [7, 8, 9]] * 8, [[16 * q + s for s in range(8)] for q in range(16)],
                             Sampling(1.0, 1.0, 3), settings.Engine(rows=128))
    return [[r.tokens for r in of_prompt] for of_prompt in made]
few = generate(policy, [[5, 6]], [[1, 2]], Sampling(1.0, 1.0, 3), settings.Engine(rows=2))
limit(100 * 2**20)
short = run()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert run() == short, "other responses"
print(sorted({len(r) for of_prompt in short for r in of_prompt}))
"""
# A round whose logits alone take 16 pairs × 2 responses × some tokens × 150,000 numbers.
TRAINING = """
import resource, sys, torch
from pathlib import Path
from transformers import LlamaConfig, AutoModelForCausalLM
from support.make import make_pairs
from hpc_saidpo import settings
from hpc_saidpo.cli.failures import failures_end_the_job
from hpc_saidpo.dpo import train
from hpc_saidpo.dpo.stage import Round, train_round
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.locate import fingerprint
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage
path, free_mib, world = sys.argv[1], int(sys.argv[2]), World()
torch.manual_seed(0)
config = LlamaConfig(vocab_size=150_000, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                     intermediate_size=16, eos_token_id=1, pad_token_id=0, bos_token_id=None)
AutoModelForCausalLM.from_config(config).save_pretrained(path)
run = RunDir(Path(path) / "runs" / "a", world, {}, print)
stage = Stage(run.path / "policy", {"policy_hash": fingerprint(path)})
stage.prepare()
of_pairs = Round(path, make_pairs(16), 0, 0, False)
dpo = settings.Dpo(micro_pairs=int(sys.argv[3]), batch_pairs=16, checkpoint_minutes=None)
prompt = settings.Rollouts(prompt=settings.Prompt(chat=False, question="{question}"))
with failures_end_the_job(world):
    limit(free_mib * 2**20)
    train_round(stage, of_pairs, settings.Policy(path=path), prompt, dpo, run)
print("trained")
"""


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", LIMIT + program, *arguments], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_out_of_memory_halves_the_rows_and_loses_nothing():
    done = run(SHORT_OF_MEMORY, MICRO)
    assert done.returncode == 0, done.stderr
    assert "out of memory with 128 responses at once: continuing with 64" in done.stderr
    assert done.stdout.strip().endswith("3]")


@pytest.mark.parametrize("free_mib, micro_pairs, is_enough", [(350, 16, False), (350, 1, True), (30, 1, False)])
def test_a_dpo_round_out_of_memory_names_the_settings_that_save_memory(tmp_path, free_mib, micro_pairs, is_enough):
    path = shutil.copytree(MICRO, tmp_path / "policy")
    done = run(TRAINING, str(path), str(free_mib), str(micro_pairs))
    if is_enough:
        assert (done.returncode, done.stdout.split()[-1:]) == (0, ["trained"]), done.stderr
        return
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "out of memory" in done.stderr
    if free_mib > 100:  # else the policy itself does not fit
        for words in (f"dpo.micro_pairs (now {micro_pairs})", "dpo.micro_tokens", "dpo.checkpointing=true",
                      "`hpc-saidpo plan`", "can't allocate memory"):  # fmt: skip
            assert words in done.stderr
