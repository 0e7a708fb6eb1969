"""Where a training round stands, on disk: weights, optimizer and step, so that a long round survives its job."""

from __future__ import annotations

import json
import time

import numpy as np
import torch
from torch import nn

from .parallel import World
from .store import Stage

NAME = "checkpoint"


class Checkpoint:
    """The checkpoint of one training round.

    It holds what is trained and its optimizer's state. That is a cost, 12 bytes per parameter with AdamW in float32, so
    it is written by the clock and not by the step: a round shorter than `minutes` writes none and would be restarted
    alone, a longer one loses at most `minutes`. Data order and learning rates are functions of the step
    (`dpo.schedule`): there is nothing of them to keep.

    Args:
        stage: the folder that the round writes to.
        minutes: time between two checkpoints; 0 for one after every step, None for none at all.
        key: what the round is trained on; a checkpoint of anything else is not taken up.
    """

    def __init__(self, stage: Stage, minutes: float | None, key: str, world: World):
        self.stage, self.minutes, self.key, self.world = stage, minutes, key, world
        self._saved = time.monotonic()

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[dict], np.ndarray] | None:
        """Set model and optimizer to where the round stopped. Collective; any number of ranks may take up the work.

        Returns:
            (figures of the steps that are done, reference log-probabilities), or None when there is no checkpoint.

        Raises:
            Damaged: the checkpoint is not readable.
        """
        facts = self.world.on_root(lambda: self.stage.read_tensor_facts(NAME))
        if facts is None or facts["key"] != self.key:
            return None
        tensors = self.stage.read_tensors(NAME)
        reference_B2 = tensors.pop("reference").numpy()
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for key, value in tensors.items():
                kind, name, *slot = key.split("/")
                parameter = parameters[name]
                if kind == "weights":
                    parameter.copy_(value)
                elif value.dim():
                    optimizer.state[parameter][slot[0]] = value.to(parameter.device)
                else:  # The step count: on the CPU, and a plain number to bitsandbytes.
                    optimizer.state[parameter][slot[0]] = value if value.is_floating_point() else int(value)
        return json.loads(facts["steps"]), reference_B2

    def save_if_due(self, model, optimizer, steps: list[dict], reference_B2: np.ndarray, at_once: bool = False) -> None:
        """Write a checkpoint when it is time, or at once. Not collective: the replicas are equal, root writes."""
        wanted = self.minutes is not None
        due = wanted and (at_once or time.monotonic() - self._saved >= 60 * self.minutes)
        if not (due and self.world.is_root):
            return
        tensors = {"reference": torch.as_tensor(reference_B2)}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                tensors[f"weights/{name}"] = parameter
                for key, value in optimizer.state[parameter].items():
                    # bitsandbytes shares its tables of values, and safetensors keeps no tensor under two names.
                    tensors[f"optimizer/{name}/{key}"] = value.clone() if "qmap" in key else torch.as_tensor(value)
        self.stage.write_tensors(NAME, tensors, {"key": self.key, "steps": json.dumps(steps)})
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Remove the checkpoint: the round is done. Not collective: root only."""
        self.stage.remove(f"{NAME}.safetensors")
