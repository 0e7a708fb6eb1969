"""One DPO training round over the ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ..checkpoint import Checkpoint
from ..logps import ResponseLogps
from ..parallel import Stopped, World
from ..policy import Policy
from ..records import Pairs
from .examples import Examples, reference_logps
from .figures import N_SUMS, check_finite, step_figures, sums_of
from .loss import loss_of, rewards
from .schedule import batches, rate
from .settings import Config


def train(
    policy: Policy,
    pairs: Pairs,
    examples: Examples,
    config: Config,
    world: World,
    seed: int,
    iteration: int,
    exact: bool,
    progress: Callable,
    checkpoint: Checkpoint | None = None,
) -> list[dict]:
    """One DPO round; changes the policy's weights in place. Collective.

    Args:
        exact: see `parallel.gradients.Replicas`.
        checkpoint: where the round is taken up, and left from time to time.

    Returns:
        Per optimizer step: step, pairs, the figures of `figures.step_figures`, grad_norm (before clipping), lr,
        tokens_per_s (prompt and response tokens over all ranks; of the clock, so never twice the same).

    Raises:
        RunError: a loss or gradient is not finite; names the step and the pairs.
        Stopped: the ranks were told to stop; the round is in its checkpoint.
    """
    model = policy.model
    # On a CPU torch's other ways go over all weights once per operation.
    fused = policy.device.type == "cpu"
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    restored = checkpoint.restore(model, optimizer) if checkpoint else None
    steps, reference_B2 = restored or ([], reference_logps(examples, policy, config, world, progress))
    schedule, tokens_B = batches(examples.width_B, config, seed, iteration), examples.tokens_B
    if config.checkpointing:
        checkpoint_layers(model)
    label = f"DPO: {len(pairs)} pairs" + f", from step {len(steps)} of {len(schedule)}" * bool(steps)
    todo = range(len(steps), len(schedule))
    module = ResponseLogps(model, config.head_tokens)
    with world.replicas(module, exact) as replicas, progress(label, len(todo)) as tick:
        for step in todo:
            started = time.perf_counter()
            lr = config.lr * rate(step, len(schedule), config.warmup)
            losses = Losses(policy, examples, reference_B2, config, schedule[step])
            replicas.gradient(losses.of_rank(world))
            grad_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm))
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
                stopping = world.stopping()
                if checkpoint:
                    checkpoint.save_if_due(model, optimizer, steps, reference_B2, at_once=bool(stopping))
                if stopping:
                    raise Stopped(stopping)
            tick()
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
    config: Config
    micro_batches: list[list[int]]
    sums: np.ndarray = field(default_factory=lambda: np.zeros(N_SUMS))
    bad: list[int] = field(default_factory=list)

    def of_rank(self, world: World) -> list[Callable[[nn.Module], torch.Tensor]]:
        """One function per micro-batch of this rank: its share of the mean over the step's pairs."""
        own = self.micro_batches[world.rank :: world.size]
        # Every rank takes part in every step: one without a micro-batch computes one that weighs nothing.
        return [self._loss(rows, 1.0) for rows in own] or [self._loss(self.micro_batches[0][:1], 0.0)]

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
