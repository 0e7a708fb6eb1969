"""Facts about the ranks of a Slurm step, as one JSON object from root; started by test_slurm.py."""

import json
import os
import time

import torch
from torch import nn

from hpc_saidpo.parallel.gradients import replicate
from hpc_saidpo.parallel.launch import connect

world = connect()
torch.set_num_threads(1)
facts = {"size": world.size, "local_size": world.local_size, "nodes": world.gather(os.environ["SLURMD_NODENAME"])}
facts["claimed"] = world.gather(list(world.claim(50)))
torch.manual_seed(0)
model = nn.Linear(8, 1)
for _ in range(3):  # groups come and go, across the nodes
    model.zero_grad()
    with replicate(world, model, exact=False) as replicas:
        replicas.gradient([lambda m: m(torch.full((1, 8), world.rank + 1.0)).sum()])
    facts["alive"] = torch.distributed.is_initialized()
facts["gradients"] = world.gather(model.weight.grad.flatten().tolist())
started, cpu_s = time.monotonic(), time.process_time()
world.on_root(lambda: time.sleep(3))
facts["idle"] = world.gather((time.process_time() - cpu_s) / (time.monotonic() - started))
if world.is_root:
    print(json.dumps(facts))
