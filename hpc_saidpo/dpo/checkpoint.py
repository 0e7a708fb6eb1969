"""Where a training round stands, on disk: weights, optimizer and step, so that a long round survives its job."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from ..errors import RunError
from ..parallel import shards
from ..parallel.world import World
from ..store.stage import Stage

NAME, FACTS = "checkpoint", "facts.json"


class Checkpoint:
    """The checkpoint of one training round: a folder to which each rank writes the shards that it has.

    It holds what is trained and its optimizer's state. That is a cost, 12 bytes per parameter with AdamW in float32, so
    it is written by the clock and not by the step: a round shorter than `minutes` writes none and would be restarted
    alone, a longer one loses at most `minutes`. Data order and learning rates are functions of the step
    (`dpo.schedule`): there is nothing of them to keep.

    The folder has the number of finished steps in its name, and appears whole; only then its predecessor goes. Another
    number of ranks, or another dpo.strategy, may take it up: tensors are known by name and by their place in the whole.

    Args:
        stage: the folder that the round writes to.
        minutes: time between two checkpoints; 0 for one after every step, None for none at all.
        key: what the round is trained on; a checkpoint of anything else is not taken up.
    """

    def __init__(self, stage: Stage, minutes: float | None, key: str, world: World):
        self.stage, self.minutes, self.key, self.world = stage, minutes, key, world
        self._saved = time.monotonic()

    def restore(
        self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[list[dict], np.ndarray] | None:
        """Set parameters and optimizer to where the round stopped. Collective.

        Args:
            parameters: what this rank trains, by name: the whole of each, its shards, or nothing.

        Returns:
            (figures of the steps that are done, reference log-probabilities), or None when there is no checkpoint.

        Raises:
            RunError: the checkpoint is not readable.
        """
        folder, facts = self.world.on_root(self._newest)
        if folder is None:
            return None

        def read():
            try:
                known, n_numbers = shards.read_shapes(folder)
                if n_numbers != facts["numbers"]:
                    raise ValueError(f"{n_numbers} of {facts['numbers']} numbers are there")
                if parameters:
                    _fill(folder, known, parameters, optimizer)
            except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
                raise _damaged(folder, error) from error

        self.world.everywhere(read)
        return facts["steps"], np.array(facts["reference"])

    def save_if_due(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        steps: list[dict],
        reference_B2: np.ndarray,
        at_once: bool = False,
    ) -> None:
        """Write a checkpoint when it is time, by root's clock, or at once. Collective; `at_once` is everyone's."""
        if self.minutes is None:
            return
        if not (at_once or self.world.bcast(time.monotonic() - self._saved >= 60 * self.minutes)):
            return
        tensors = {f"weights/{name}": p.detach() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            for slot, value in optimizer.state[parameter].items():
                # bitsandbytes' tables of values are one for all, and safetensors keeps no tensor under two names.
                tensors[f"optimizer/{name}/{slot}"] = value.clone() if "qmap" in slot else torch.as_tensor(value)
        numbers = sum(tensor.numel() for tensor in tensors.values())
        facts = {"key": self.key, "steps": steps, "reference": reference_B2.tolist(), "numbers": numbers}

        def write(folder: Path):
            shards.save(folder, tensors)
            if self.world.is_root:
                (folder / FACTS).write_text(json.dumps(facts))

        name = f"{NAME}-{len(steps):06d}"
        self.stage.write_folder(name, write, self.world)
        self.world.on_root(lambda: remove(self.stage, but=name))
        self._saved = time.monotonic()

    def _newest(self) -> tuple[Path, dict] | tuple[None, None]:
        """The newest checkpoint of this round, and what is known of it beside its tensors."""
        for folder in sorted(self.stage.path.glob(f"{NAME}-" + 6 * "[0-9]"), reverse=True):
            try:
                facts = json.loads((folder / FACTS).read_text())
                if facts["key"] == self.key:
                    return folder, facts
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise _damaged(folder, error) from error
        return None, None


def _damaged(folder: Path, error: Exception) -> RunError:
    return RunError(
        f"{folder}: the checkpoint is not readable ({error}). Move it away, and start the same command again: the "
        "round is trained from its beginning"
    )


def remove(stage: Stage, but: str = "") -> None:
    """Remove every checkpoint in the folder of a round, except for one. Not collective: root only."""
    for folder in stage.path.glob(f"{NAME}-*"):
        if folder.name != but:
            stage.remove(folder.name)


def _fill(
    folder: Path, known: Mapping, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Read weights in place, and the optimizer's state into new tensors, cut as their parameters are."""
    places = {}
    for key, (size, dtype) in known.items():
        kind, name, *_ = key.split("/")
        parameter = parameters[name].detach()
        if kind == "weights":
            places[key] = parameter
        elif size == parameter.size():
            places[key] = torch.zeros_like(parameter, dtype=dtype)
        else:  # AdamW keeps its count of steps on the CPU.
            places[key] = torch.zeros(size, dtype=dtype, device=parameter.device if size else "cpu")
    shards.load(folder, places)
    for key, value in places.items():
        kind, name, *slot = key.split("/")
        if kind == "optimizer":
            # bitsandbytes counts its steps in a plain number.
            is_number = not value.dim() and not value.is_floating_point()
            optimizer.state[parameters[name]][slot[0]] = int(value) if is_number else value
