"""Decoding in a process that has little memory left."""

import os
import subprocess
import sys

from support.make import MICRO

SHORT_OF_MEMORY = """
import resource, sys, torch
from transformers import LlamaConfig, AutoModelForCausalLM
from hpc_saidpo import settings
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.settings.rollouts import Sampling
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
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20, resource.RLIM_INFINITY))
short = run()
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert run() == short, "other responses"
print(sorted({len(r) for of_prompt in short for r in of_prompt}))
"""


def test_out_of_memory_halves_the_rows_and_loses_nothing():
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, MICRO], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "out of memory with 128 responses at once: continuing with 64" in done.stderr
    assert done.stdout.strip().endswith("3]")
