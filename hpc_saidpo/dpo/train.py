"""One DPO training round over the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from .. import progress, settings
from ..parallel.gradients import Replicas, replicate
from ..parallel.stop import Stopped
from ..parallel.task import ALL_RANKS, Units
from ..parallel.world import World
from ..policy.model import Policy
from ..records import Pairs
from .adapters import Adapters, inject
from .arrangement import try_arrangement
from .checkpoint import Checkpoint
from .examples import Examples, reference_logps
from .figures import N_SUMS, check_finite, step_figures, sums_of
from .logps import ResponseLogps
from .loss import loss_of, preference_loss, rewards
from .optimizer import optimizer_of
from .schedule import batches, rate
from .trainable import check_strategy


@dataclass(frozen=True)
class Lesson:
    """The pairs of one DPO round.

    Attributes:
        examples: the same pairs as token ids.
        seed, iteration: determine the order of the pairs.
        exact: see `parallel.gradients.Replicas`.
    """

    pairs: Pairs
    examples: Examples
    seed: int
    iteration: int
    exact: bool = False


def train(
    policy: Policy,
    lesson: Lesson,
    config: settings.Dpo,
    world: World,
    checkpoint: Checkpoint | None = None,
    save: Callable[[], None] = lambda: None,
    reference: Callable[[Callable[[], np.ndarray]], np.ndarray] = lambda compute: compute(),
    save_adapters: Callable[[Adapters], None] = lambda adapters: None,
) -> list[dict]:
    """Do one DPO round. Collective.

    It changes the policy's weights in place: on every rank (dpo.strategy=ddp), on root (single), or in each rank's
    shards, which only `save` can use (fsdp).

    Args:
        checkpoint: restores the round, if it was interrupted, and saves it from time to time.
        save: called on every rank after the training.
        save_adapters: called on every rank before they are merged, if there are any.
        reference: returns the reference log-probabilities, [B, 2], nats. Its argument computes them.

    Returns:
        Per optimizer step: step, pairs, the figures of `figures.step_figures`, grad_norm (before clipping), lr,
        tokens_per_s (prompt and response tokens over all ranks; measured, so it differs between runs).

    Raises:
        RunError: a loss or gradient is not finite, with the step and the pairs; or dpo.strategy=fsdp cannot save such a
            model.
        Stopped: a rank received a signal to stop; the round is in its checkpoint.
    """
    check_strategy(policy.model, policy.path, config)
    unused = try_arrangement(policy.model, policy.precision).unused
    adapters = inject(policy.model, config.lora, lesson.seed, lesson.iteration)
    layers = [layer for layer in policy.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if config.checkpointing:
        checkpoint_layers(policy.model)
    module = ResponseLogps(policy.model, config.head_tokens)
    with replicate(world, module, lesson.exact, config.strategy, layers, policy.precision, unused) as replicas:
        steps = _Round(policy, lesson, config, world, replicas).run(checkpoint, reference)
        if adapters:
            save_adapters(adapters)
        adapters.merge()
        save()
    return steps


class _Round:
    """The optimizer steps of one round."""

    def __init__(self, policy: Policy, lesson: Lesson, config: settings.Dpo, world: World, replicas: Replicas):
        self.policy, self.lesson, self.config, self.world, self.replicas = policy, lesson, config, world, replicas
        self.schedule = batches(lesson.examples.width_B, config, lesson.seed, lesson.iteration)
        self.tokens_B = lesson.examples.tokens_B
        self.parameters = replicas.parameters()
        self.optimizer = optimizer_of(self.parameters.values(), config)

    def run(
        self, checkpoint: Checkpoint | None, reference: Callable[[Callable[[], np.ndarray]], np.ndarray]
    ) -> list[dict]:
        """Do the steps that the checkpoint does not contain. Returns the figures of all steps."""
        restored = checkpoint.restore(self.parameters, self.optimizer) if checkpoint else None
        steps, reference_B2 = restored or ([], reference(self._reference))
        resumed = f", from step {len(steps)} of {len(self.schedule)}" if steps else ""
        todo = range(len(steps), len(self.schedule))
        label = f"DPO: {len(self.lesson.pairs)} pairs{resumed}"
        sizes = [sum(map(len, self.schedule[step])) for step in todo]
        units = Units("pairs", sum(len(rows) for batch in self.schedule for rows in batch), sizes)
        with progress.show(label, len(self.schedule), self.world.is_root, len(steps), todo, units) as task:
            for step in todo:
                task.begin(ALL_RANKS, step - todo.start)
                steps.append(self._step(step, reference_B2))
                if step + 1 < len(self.schedule):
                    stopping = self.world.stop_signal()
                    if checkpoint:
                        checkpoint.save_if_due(
                            self.parameters, self.optimizer, steps, reference_B2, at_once=bool(stopping)
                        )
                    if stopping:
                        raise Stopped(stopping)
                n_tokens = self.tokens_B[[i for rows in self.schedule[step] for i in rows]].sum()
                task.end(ALL_RANKS, step, {"tokens": int(n_tokens)})
        return steps

    def _reference(self) -> np.ndarray:
        return reference_logps(self.lesson.examples, self.policy, self.config, self.world, self.replicas)

    def _step(self, step: int, reference_B2: np.ndarray) -> dict:
        """Do one optimizer step. Returns its figures."""
        started = time.perf_counter()
        micro_batches = self.schedule[step]
        lr = self.config.lr * rate(step, len(self.schedule), self.config.warmup)
        losses = Losses(self.policy, self.lesson.examples, reference_B2, self.config, micro_batches)
        self.replicas.gradient(losses.of_rank(self.replicas))
        grad_norm = self.replicas.clip(self.config.max_grad_norm)
        rows = [i for micro_batch in micro_batches for i in micro_batch]
        figures = step_figures(self.world.sum(losses.sums), len(rows))
        bad = [i for of_rank in self.world.gather(losses.bad) for i in of_rank]
        check_finite(step, figures["loss"], grad_norm, self.lesson.pairs, rows, bad)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        speed = float(self.tokens_B[rows].sum() / (time.perf_counter() - started))
        return {"step": step, "pairs": len(rows), **figures, "grad_norm": grad_norm, "lr": lr, "tokens_per_s": speed}


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Make every layer of a transformers model compute its activations again in the backward pass.

    transformers does so in training mode only, which also switches dropout on: then the policy's log-probabilities
    would differ from the reference's at the start. So only the layers are set to training mode, not their parts.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True


@dataclass
class Losses:
    """The losses of one step's micro-batches, and notes on this rank's pairs.

    Attributes:
        sums: sums over this rank's pairs (`figures.sums_of`).
        bad: this rank's pairs whose loss is not finite.
    """

    policy: Policy
    examples: Examples
    reference_B2: np.ndarray
    config: settings.Dpo
    micro_batches: list[list[int]]
    sums: np.ndarray = field(default_factory=lambda: np.zeros(N_SUMS))
    bad: list[int] = field(default_factory=list)

    def of_rank(self, replicas: Replicas) -> list[Callable[[nn.Module], torch.Tensor]]:
        """One function per micro-batch of this rank: module -> its share of the mean loss over the step's pairs."""
        turns = replicas.share(self.micro_batches)
        # Every rank takes part in every turn: a rank without a micro-batch computes one with weight 0.
        return [self._loss(rows, 1.0) if rows else self._loss(self.micro_batches[-1][-1:], 0.0) for rows in turns]

    def _loss(self, rows: list[int], weight: float) -> Callable[[nn.Module], torch.Tensor]:
        n = sum(map(len, self.micro_batches))

        def loss(module: nn.Module) -> torch.Tensor:
            with self.policy.autocast():
                logps = self.examples.logps(module, rows)
            logps_B2 = logps.sum_BR
            reference_B2 = torch.as_tensor(self.reference_B2[rows], dtype=logps_B2.dtype, device=logps_B2.device)
            loss_B = loss_of(logps_B2, reference_B2, logps.n_tokens_BR, self.config)
            if weight:
                values_B2 = rewards(logps_B2, reference_B2, self.config.beta)
                preference_B = preference_loss(logps_B2.detach(), reference_B2, logps.n_tokens_BR, self.config)
                self.sums += sums_of(loss_B, preference_B, values_B2, logps_B2, reference_B2, logps.n_tokens_BR)
                self.bad += [i for i, value in zip(rows, loss_B.tolist(), strict=True) if not np.isfinite(value)]
            return weight * loss_B.sum() / n

        return loss
