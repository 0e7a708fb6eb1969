"""Decode on the device `pretend`, and print how often the host waits for it: one line of JSON for each case.

python count_waits.py LIBRARY
"""

import dataclasses
import json
import os
import sys
from collections import Counter
from pathlib import Path

import hpc_saidpo.cli.environment  # noqa: F401 - before heavy imports, as the program does

import pretend_device  # isort: skip
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hpc_saidpo.doctor.device import models
from hpc_saidpo.doctor.device.bench import CPU_SIZES
from hpc_saidpo.rollouts.chunks import common_prefix
from hpc_saidpo.rollouts.engine import shared
from hpc_saidpo.rollouts.engine.linears import fast
from hpc_saidpo.rollouts.engine.shared import Decoding
from hpc_saidpo.rollouts.engine.work import Backlog, Load, Options, Work, listed
from hpc_saidpo.settings.rollouts import Sampling

START = list(range(10, 18))
CASES = {
    "few rows": ([], Options(8, with_logp=False), Sampling(1.0, 1.0, 10)),
    "many rows": ([], Options(32), Sampling(1.0, 1.0, 10)),
    "a start, top_p and a stop string": (START, Options(32), Sampling(0.8, 0.9, 10, stop=("7",))),
    "graphs": (START, Options(32, graphs=True), Sampling(1.0, 1.0, 10)),
}


class Waits(TorchDispatchMode):
    """Counts the operations at which the host waits for the device: CUDA waits at the same ones."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, options = func.overloadpacket.__name__, kwargs or {}
        if name in ("_local_scalar_dense", "nonzero") and args[0].device.type != "cpu":
            self.counts[name] += 1
        if name in ("copy_", "_to_copy"):
            source = args[1] if name == "copy_" else args[0]
            target = args[0].device if name == "copy_" else torch.device(options.get("device") or source.device)
            is_async = bool(options.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            if target.type != source.device.type:
                to_host = target.type == "cpu"
                self.counts["to the host" if to_host else "sent" if is_async else "sent, waiting"] += 1
        return func(*args, **options)


class Replayed:
    """Stands in for CUDA graphs: a graph may neither send nor wait."""

    def run(self, step, compute):
        with Waits() as waits:
            result = compute()
        assert not waits.counts, waits.counts
        sizes.add(step)
        return result


sizes: set = set()


def decode(policy, start, options, sampling):
    """(waits by kind, steps, responses) of 20 prompts with 4 responses each."""
    policy = dataclasses.replace(policy, ends=frozenset(range(0, 600, 9)))
    prompts = [[*start, *ids[: 3 + i % 5]] for i, ids in enumerate(models.random_ids(CPU_SIZES.large, 20, 8, 1))]
    n_start = common_prefix(prompts)
    works = [Work(prompt, range(4 * i, 4 * i + 4), n_start) for i, prompt in enumerate(prompts)]
    longest = max(map(len, prompts))
    load = Load(4, longest, longest - n_start, n_start)
    with fast(policy, torch.float32):
        decoding = Decoding(policy, Backlog(listed(works), options.n_rows), load, sampling, options)
        choices, choose = [], decoding._choose
        decoding._choose = lambda rows: choices.append(len(rows)) or choose(rows)
        with Waits() as waits:
            assert len(list(decoding.run())) == len(works)
    return waits.counts, len(choices), [response.tokens for work in works for response in work.responses]


def main(library: str) -> None:
    torch.set_num_threads(1)
    device = pretend_device.load(Path(library))
    shared.Graphs = Replayed
    cpu = models.large_policy(CPU_SIZES.large, torch.device("cpu"))
    cpu = dataclasses.replace(cpu, precision=torch.float32)
    here = dataclasses.replace(models.large_policy(CPU_SIZES.large, device), precision=torch.float32)
    for name, (start, options, sampling) in CASES.items():
        sizes.clear()
        waits, n_choices, tokens = decode(here, start, options, sampling)
        _, _, expected = decode(cpu, start, dataclasses.replace(options, graphs=False), sampling)
        lengths = sorted(map(len, tokens))
        print(
            json.dumps([name, waits, n_choices, tokens == expected, len(sizes), lengths[0] < lengths[-1]]), flush=True
        )
    os._exit(0)  # threads of the autograd engine for such a device end with an abort


main(*sys.argv[1:])
