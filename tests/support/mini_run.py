"""A run of the store alone, with every kind of file, for tests of crashes and damage."""

import numpy as np
import torch
from safetensors.torch import save_file
from support.make import make_rollouts

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import CORRECT, Draw, Rollouts
from hpc_saidpo.store.run import RunDir

RESOLVED = {"run": {"name": "run"}, "pool": {"path": "a"}}
N_CHUNKS = 3


def work(folder) -> None:
    """Do the run, or resume it: probe, draw, policy and metrics of one iteration."""
    with RunDir.open(settings.Run(root=str(folder), name="run"), RESOLVED, {"started": "now"}, World()) as run:
        probed = run.stage(0, "probe", _roll, lambda s: s.read_chunks(Rollouts).sorted())
        drawn = Draw(probed.question_R[::2], np.ones(3), np.zeros(3))
        run.stage(0, "draw", lambda s: s.write("draw", drawn), lambda s: s.read("draw", Draw))
        run.stage(0, "policy", _train, lambda s: s.read_json("steps"))
        run.finish_iteration(0, {"iteration": 0, "signatures": []})


def _roll(stage):
    for i in set(range(N_CHUNKS)) - stage.finished_chunks():
        stage.write_chunk(i, make_rollouts([(N_CHUNKS - i, k, CORRECT, 1, 1, True, f"{i} {k}") for k in range(2)]))
    for chunks in (range(0, 2), range(2, 3)):
        stage.seal(chunks, Rollouts)


def _train(stage):
    stage.write_folder("checkpoint-000001", _save)
    stage.write_folder("model", _save)
    stage.write_json("steps", [{"step": 0}])
    stage.remove("checkpoint-000001")


def _save(folder):
    save_file({"w": torch.arange(5.0)}, folder / "model.safetensors")
