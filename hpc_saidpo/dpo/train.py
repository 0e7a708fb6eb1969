"""One DPO training round over the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .. import progress, settings
from ..errors import RunError
from ..parallel.gradients import Replicas, replicate
from ..parallel.stop import Stopped
from ..parallel.world import World
from ..policy.model import Policy
from ..policy.save import is_stored_as_computed
from ..records import Pairs
from .adapters import inject
from .checkpoint import Checkpoint
from .examples import Examples, reference_logps
from .figures import N_SUMS, check_finite, step_figures, sums_of
from .logps import ResponseLogps
from .loss import loss_of, rewards
from .optimizer import optimizer_of
from .schedule import batches, rate


@dataclass(frozen=True)
class Lesson:
    """The data of one DPO round.

    Attributes:
        examples: the same pairs as token ids.
        seed, iteration: decide the order of the pairs.
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
    known: Callable[[Callable[[], np.ndarray]], np.ndarray] = lambda compute: compute(),
) -> list[dict]:
    """One DPO round. Collective.

    It changes the policy's weights in place: on every rank (dpo.strategy=ddp), on root (single), or each rank's shards,
    of which `save` alone can make something (fsdp).

    Args:
        checkpoint: where the round is taken up, and left from time to time.
        save: called on every rank when the weights are trained.
        known: gives the reference log-probabilities, [B, 2]; from what it is passed, where it does not know them.

    Returns:
        Per optimizer step: step, pairs, the figures of `figures.step_figures`, grad_norm (before clipping), lr,
        tokens_per_s (prompt and response tokens over all ranks; of the clock, so never twice the same).

    Raises:
        RunError: a loss or gradient is not finite, with the step and the pairs; or dpo.strategy=fsdp cannot save such a
            model.
        Stopped: the ranks were told to stop; the round is in its checkpoint.
    """
    examples, pairs = lesson.examples, lesson.pairs
    schedule, tokens_B = batches(examples.width_B, config, lesson.seed, lesson.iteration), examples.tokens_B
    if config.strategy == "fsdp" and not is_stored_as_computed(policy.model):
        raise RunError(
            f"dpo.strategy=fsdp: {policy.path} is a {policy.model.config.model_type} model, whose weights have other "
            "names in memory than in its files: use dpo.strategy=ddp"
        )
    merge = inject(policy.model, config.lora, lesson.seed, lesson.iteration)
    layers = [layer for layer in policy.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if config.checkpointing:
        checkpoint_layers(policy.model)
    module = ResponseLogps(policy.model, config.head_tokens)
    with replicate(world, module, lesson.exact, config.strategy, layers, policy.precision) as replicas:
        parameters = replicas.parameters()
        optimizer = optimizer_of(parameters.values(), config)
        restored = checkpoint.restore(parameters, optimizer) if checkpoint else None
        steps, reference_B2 = restored or (
            [], known(lambda: reference_logps(examples, policy, config, world, replicas))
        )  # fmt: skip
        label = f"DPO: {len(pairs)} pairs" + f", from step {len(steps)} of {len(schedule)}" * bool(steps)
        todo = range(len(steps), len(schedule))
        with progress.show(label, len(todo), world.is_root) as tick:
            for step in todo:
                started = time.perf_counter()
                lr = config.lr * rate(step, len(schedule), config.warmup)
                losses = Losses(policy, examples, reference_B2, config, schedule[step])
                replicas.gradient(losses.of_rank(replicas))
                grad_norm = replicas.clip(config.max_grad_norm)
                rows = [i for micro in schedule[step] for i in micro]
                figures = step_figures(world.sum(losses.sums), len(rows))
                bad = [i for part in world.gather(losses.bad) for i in part]
                check_finite(step, figures["loss"], grad_norm, pairs, rows, bad)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                speed = float(tokens_B[rows].sum() / (time.perf_counter() - started))
                facts = {"step": step, "pairs": len(rows), **figures}
                steps.append({**facts, "grad_norm": grad_norm, "lr": lr, "tokens_per_s": speed})
                if step + 1 < len(schedule):
                    stopping = world.stop_signal()
                    if checkpoint:
                        checkpoint.save_if_due(parameters, optimizer, steps, reference_B2, at_once=bool(stopping))
                    if stopping:
                        raise Stopped(stopping)
                tick()
        merge()
        save()
    return steps


def checkpoint_layers(model: nn.Module) -> None:
    """Let every layer of a transformers model compute its activations again in the backward pass.

    transformers does so in training mode only, which would switch dropout on as well: a policy whose log-probabilities
    are not the reference's at the start. So the layers are told that they train, and nothing in them is.
    """
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = True


@dataclass
class Losses:
    """The losses of one step's micro-batches, and what is noted of them on the way.

    Attributes:
        sums: see `figures.sums_of`, of this rank's pairs.
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
        """One function per micro-batch of this rank: its share of the mean over the step's pairs."""
        own = replicas.share(self.micro_batches)
        # Every rank takes part in every turn: one without a micro-batch computes one that weighs nothing.
        return [self._loss(rows, 1.0) if rows else self._loss(self.micro_batches[-1][-1:], 0.0) for rows in own]

    def _loss(self, rows, weight):
        n = sum(map(len, self.micro_batches))

        def loss(module):
            with self.policy.autocast():
                found = self.examples.logps(module, rows)
            logps_B2 = found.sum_BR
            reference_B2 = torch.as_tensor(self.reference_B2[rows], dtype=logps_B2.dtype, device=logps_B2.device)
            loss_B = loss_of(logps_B2, reference_B2, found.n_tokens_BR, self.config)
            if weight:
                values_B2 = rewards(logps_B2, reference_B2, self.config.beta)
                self.sums += sums_of(loss_B, values_B2, logps_B2, reference_B2, found.n_tokens_BR)
                self.bad += [i for i, value in zip(rows, loss_B.tolist(), strict=True) if not np.isfinite(value)]
            return weight * loss_B.sum() / n

        return loss
