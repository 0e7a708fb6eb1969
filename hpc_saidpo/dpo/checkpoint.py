"""The checkpoint of a training round on disk: weights, optimizer and step. A long round can outlive its job."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn

from ..errors import RunError, is_transient, shown, words_of
from ..parallel import shards
from ..parallel.world import World
from ..reading import parse_json, read_text
from ..store import disk
from ..store.stage import Stage

NAME, FACTS = "checkpoint", "facts.json"
_FOLDERS = f"{NAME}-" + 6 * "[0-9]"


class Checkpoint:
    """The checkpoint of one training round: a folder to which each rank writes its shards.

    It contains the trained weights and the optimizer's state: 12 bytes per parameter with AdamW in float32. So it is
    written by the clock, not by the step. A round shorter than `minutes` writes none and is trained again from its
    beginning; a longer round loses at most `minutes`. Data order and learning rates are functions of the step
    (`dpo.schedule`) and need no storage.

    The folder's name contains the number of finished steps. It appears complete or not at all; then its predecessor is
    removed. Another number of ranks, or another dpo.strategy, can restore it: a tensor is identified by its name and
    its place in the whole.

    Args:
        stage: the stage of the round.
        minutes: time between two checkpoints; 0 writes one after every step, None writes none.
        key: identifies the round's pairs; a checkpoint with another key is ignored.
    """

    def __init__(self, stage: Stage, minutes: float | None, key: str, world: World):
        self.stage, self.minutes, self.key, self.world = stage, minutes, key, world
        self._saved = time.monotonic()

    def restore(
        self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[list[dict], np.ndarray] | None:
        """Set parameters and optimizer to the state of the newest checkpoint. Collective.

        Args:
            parameters: the parameters that this rank trains, by name: whole ones, shards, or none.

        Returns:
            (figures of the finished steps, reference log-probabilities [B, 2]), or None when there is no checkpoint.

        Raises:
            RunError: the checkpoint is not readable.
        """
        newest = self.world.on_root(self._newest)
        if newest is None:
            return None
        folder, facts = newest

        def read() -> None:
            try:
                saved, n_numbers = shards.read_shapes(folder)
                if n_numbers != facts["numbers"]:
                    raise ValueError(f"{n_numbers} of {facts['numbers']} numbers are there")
                if parameters:
                    _fill(folder, saved, parameters, optimizer)
            except (SafetensorError, OSError, RuntimeError, KeyError, ValueError) as error:
                if is_transient(error):
                    raise
                raise _damaged(folder, error) from error

        disk.persist(folder, lambda: self.world.everywhere(read))
        return facts["steps"], np.array(facts["reference"])

    def save_if_due(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        steps: list[dict],
        reference_B2: np.ndarray,
        at_once: bool = False,
    ) -> None:
        """Write a checkpoint when it is due by root's clock, or at once (the same on all ranks). Collective."""
        if self.minutes is None:
            return
        if not (at_once or self.world.bcast(time.monotonic() - self._saved >= 60 * self.minutes)):
            return
        tensors = {f"weights/{name}": p.detach() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            for slot, value in optimizer.state[parameter].items():
                # bitsandbytes shares one table of values, and safetensors stores no tensor under two names.
                tensors[f"optimizer/{name}/{slot}"] = value.clone() if "qmap" in slot else torch.as_tensor(value)
        numbers = sum(tensor.numel() for tensor in tensors.values())
        facts = {"key": self.key, "steps": steps, "reference": reference_B2.tolist(), "numbers": numbers}

        def write(folder: Path) -> None:
            shards.save(folder, tensors)
            if self.world.is_root:
                (folder / FACTS).write_text(json.dumps(facts))

        name = f"{NAME}-{len(steps):06d}"
        self.stage.write_folder(name, write, self.world)
        self.world.on_root(lambda: remove(self.stage, but=name))
        self._saved = time.monotonic()

    def _newest(self) -> tuple[Path, dict] | None:
        """The folder and the facts of this round's newest checkpoint; None when there is none."""
        for folder in sorted(self.stage.path.glob(_FOLDERS), reverse=True):
            try:
                facts = parse_json(disk.persist(folder, lambda folder=folder: read_text(folder / FACTS)))
                if facts["key"] == self.key:
                    return folder, facts
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise _damaged(folder, error) from error
        return None


def _damaged(folder: Path, error: Exception) -> RunError:
    return RunError(
        f"{shown(folder)}: the checkpoint is not readable ({words_of(error)}). Move it away, and start the same "
        "command again: the round is trained from its beginning"
    )


def remove(stage: Stage, but: str = "") -> None:
    """Remove every checkpoint of a round, except for the folder named `but`. Root only."""
    for folder in stage.path.glob(_FOLDERS):
        if folder.name != but:
            stage.remove(folder.name)


def _fill(
    folder: Path,
    saved: Mapping[str, tuple[torch.Size, torch.dtype]],
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Read weights in place, and the optimizer's state into new tensors, sharded like their parameters."""
    places = {}
    for key, (size, dtype) in saved.items():
        kind, name, *_ = key.split("/")
        parameter = parameters[name].detach()
        if kind == "weights":
            places[key] = parameter
        elif size == parameter.size():
            places[key] = torch.zeros_like(parameter, dtype=dtype)
        else:  # AdamW stores its count of steps on the CPU.
            places[key] = torch.zeros(size, dtype=dtype, device=parameter.device if size else "cpu")
    shards.load(folder, places)
    for key, value in places.items():
        kind, name, *slot = key.split("/")
        if kind == "optimizer":
            # bitsandbytes stores its count of steps as a plain number.
            is_number = not value.dim() and not value.is_floating_point()
            optimizer.state[parameters[name]][slot[0]] = int(value) if is_number else value
