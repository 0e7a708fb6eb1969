"""Decode on the device `pretend`, and print how often the host waits for it: one line of JSON for each case.

python count_waits.py LIBRARY
"""

import copy
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
from hpc_saidpo.rollouts.engine import kernels, shared
from hpc_saidpo.rollouts.engine.linears import fast
from hpc_saidpo.rollouts.engine.shared import Decoding
from hpc_saidpo.rollouts.engine.work import Backlog, Load, Options, Work, listed
from hpc_saidpo.settings.rollouts import Sampling

START = list(range(10, 18))
CASES = {
    "few rows": ([], Options(8, with_logp=False), Sampling(1.0, 1.0, 7)),
    "many rows": ([], Options(32), Sampling(1.0, 1.0, 7)),
    "a start, top_p and a stop string": (START, Options(32), Sampling(0.8, 0.9, 7, stop=("7",))),
    "a kernel's stand-in": (START, Options(32), Sampling(1.0, 1.0, 7)),
    "graphs": (START, Options(32, graphs=True), Sampling(1.0, 1.0, 7)),
}
READING = ("item", "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2")


class Waits(TorchDispatchMode):
    """Counts copies between the host and the device, and the operations at which CUDA waits besides."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        is_there = [isinstance(x, torch.Tensor) and x.device.type != "cpu" for x in args]
        if name in READING and is_there[0]:
            self.counts[name] += 1
        if name in ("index", "index_put", "index_put_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        ):
            self.counts["a mask"] += 1
        result = func(*args, **kwargs)
        # With `inference_mode` `to` is seen as it was called, else as `_to_copy`.
        if name in ("to", "_to_copy", "copy_"):
            source = args[1] if name == "copy_" else args[0]
            if source.device.type != result.device.type:
                named = dict(zip([argument.name for argument in func._schema.arguments], args, strict=False)) | kwargs
                to_host = result.device.type == "cpu"
                self.counts["to the host" if to_host else "sent" if named.get("non_blocking") else "sent, waiting"] += 1
        return result


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
    """(waits by kind, steps, responses) of 14 prompts with 4 responses each."""
    policy = dataclasses.replace(policy, ends=frozenset(range(0, 600, 9)))
    prompts = [[*start, *ids[: 3 + i % 5]] for i, ids in enumerate(models.random_ids(CPU_SIZES.large, 14, 8, 1))]
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
    find_kernel, supports = kernels.find_kernel, kernels.supports
    torch.manual_seed(0)
    cpu = models.large_policy(CPU_SIZES.large, torch.device("cpu"))
    cpu = dataclasses.replace(cpu, precision=torch.float32)
    here = dataclasses.replace(cpu, model=copy.deepcopy(cpu.model).to(device), device=device)
    for name, (start, options, sampling) in CASES.items():
        sizes.clear()
        if "kernel" in name:
            kernels.find_kernel, kernels.supports = lambda attention: kernels.by_torch, lambda size: True
        waits, n_choices, tokens = decode(here, start, options, sampling)
        kernels.find_kernel, kernels.supports = find_kernel, supports
        _, _, expected = decode(cpu, start, dataclasses.replace(options, graphs=False), sampling)
        lengths = sorted(map(len, tokens))
        print(
            json.dumps([name, waits, n_choices, tokens == expected, len(sizes), lengths[0] < lengths[-1]]), flush=True
        )
    os._exit(0)  # threads of the autograd engine for such a device end with an abort


main(*sys.argv[1:])
