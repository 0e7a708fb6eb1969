"""The preference loss, and one DPO training round over the ranks (README, method step 7)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import logsigmoid

from .checkpoint import Checkpoint
from .logps import response_logps
from .parallel import Stopped, World
from .policy import Policy
from .records import Pairs, RunError, seeded, settings

METRICS = ("loss", "reward_chosen", "reward_rejected", "margin", "accuracy")


@settings()
class Config:
    beta: Annotated[float, Field(gt=0)] = 0.1
    lr: Annotated[float, Field(gt=0)] = 5e-7
    epochs: Annotated[int, Field(ge=1)] = 1
    batch_pairs: Annotated[int, Field(ge=1)] = 128
    micro_pairs: Annotated[int, Field(ge=1)] = 4
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    nll: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    checkpointing: bool = False
    checkpoint_minutes: Annotated[float, Field(ge=0)] | None = 10.0


def dpo_loss(chosen_B, rejected_B, ref_chosen_B, ref_rejected_B, beta: float, label_smoothing: float = 0.0):
    """DPO loss of each pair (Rafailov et al. 2023, eq. 7), and the implicit rewards.

    -log sigma(beta·[(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))]); with label smoothing eps, the
    expected loss when a preference is flipped with probability eps (cDPO, Mitchell 2023).

    Args:
        chosen_B, rejected_B: log-probabilities of the responses under the policy, nats, summed over tokens; shape [B].
        ref_chosen_B, ref_rejected_B: the same under the reference.

    Returns:
        (loss [B], reward of chosen [B], reward of rejected [B]); rewards are beta·(log pi - log ref), detached.
    """
    reward_chosen_B = beta * (chosen_B - ref_chosen_B)
    reward_rejected_B = beta * (rejected_B - ref_rejected_B)
    margin_B = reward_chosen_B - reward_rejected_B
    loss_B = -(1 - label_smoothing) * logsigmoid(margin_B) - label_smoothing * logsigmoid(-margin_B)
    return loss_B, reward_chosen_B.detach(), reward_rejected_B.detach()


@dataclass(frozen=True)
class Examples:
    """Tokenised pairs: token ids, and the reference's log-probabilities [B, 2] (chosen, rejected)."""

    prompt: list[list[int]]
    chosen: list[list[int]]
    rejected: list[list[int]]
    reference_B2: np.ndarray | None = None

    def logps(self, module, rows: Sequence[int], pad_id: int) -> torch.Tensor:
        """Log-probabilities [rows, 2] of the chosen and rejected responses."""
        both = [(self.chosen[i], self.rejected[i]) for i in rows]
        return response_logps(module, [self.prompt[i] for i in rows], both, pad_id)


def tokenise(pairs: Pairs, policy: Policy, chat: bool, stop: Sequence[str]) -> Examples:
    """Token ids of prompts and responses, as the policy generated them."""
    return Examples(
        [policy.encode_prompt(text, chat) for text in pairs.prompt_B],
        [policy.encode_response(t, f, stop) for t, f in zip(pairs.chosen_B, pairs.chosen_finished_B, strict=True)],
        [policy.encode_response(t, f, stop) for t, f in zip(pairs.rejected_B, pairs.rejected_finished_B, strict=True)],
    )


def reference_logps(examples: Examples, policy: Policy, config: Config, world: World, progress) -> np.ndarray:
    """log pi_ref of every response, [B, 2]: the policy as it starts is the reference. Collective."""
    n = len(examples.prompt)
    order = sorted(range(n), key=lambda i: (-_length(examples, i), i))
    chunks = [order[i : i + config.micro_pairs] for i in range(0, n, config.micro_pairs)]
    own = {}
    with progress(f"reference log-probabilities: {n} pairs", len(chunks)) as tick, torch.no_grad(), policy.autocast():
        for c in world.claim(len(chunks), tick):
            own[c] = examples.logps(policy.model, chunks[c], policy.tokenizer.pad_token_id).cpu().numpy()
    reference_B2 = np.empty((n, 2))
    for part in world.gather(own):
        for c, logps in part.items():
            reference_B2[chunks[c]] = logps
    return reference_B2


def batches(examples: Examples, config: Config, seed: int, iteration: int) -> list[list[list[int]]]:
    """The round's schedule: for every optimizer step its micro-batches of pair indices, the same on every rank.

    Within a step, pairs of like length share a micro-batch.
    """
    steps = []
    for epoch in range(config.epochs):
        order = seeded(seed, iteration, "epoch", epoch).permutation(len(examples.prompt))
        for start in range(0, len(order), config.batch_pairs):
            batch = sorted(order[start : start + config.batch_pairs].tolist(), key=lambda i: (-_length(examples, i), i))
            steps.append([batch[i : i + config.micro_pairs] for i in range(0, len(batch), config.micro_pairs)])
    return steps


def rate(step: int, n_steps: int, warmup: float) -> float:
    """Learning rate at a step, as a share of the peak: linear warm-up, then cosine to zero; never zero itself."""
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - n_warmup) / (n_steps - n_warmup)))


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
        Per optimizer step: loss, reward_chosen, reward_rejected, margin, accuracy (means over the step's pairs),
        grad_norm, lr.

    Raises:
        RunError: a loss or gradient is not finite; names the step and the questions.
        Stopped: the ranks were told to stop; the round is in its checkpoint.
    """
    model = policy.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    restored = checkpoint.restore(model, optimizer) if checkpoint else None
    steps, reference_B2 = restored or ([], reference_logps(examples, policy, config, world, progress))
    examples = Examples(examples.prompt, examples.chosen, examples.rejected, reference_B2)
    schedule = batches(examples, config, seed, iteration)
    if config.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    label = f"DPO: {len(pairs)} pairs" + f", from step {len(steps)} of {len(schedule)}" * bool(steps)
    todo = range(len(steps), len(schedule))
    with world.replicas(model, exact) as replicas, progress(label, len(todo)) as tick:
        for step in todo:
            micro_batches, lr = schedule[step], config.lr * rate(step, len(schedule), config.warmup)
            sums = np.zeros(len(METRICS))
            replicas.gradient(_losses(policy, examples, config, micro_batches, world, sums))
            grad_norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm))
            n = sum(map(len, micro_batches))
            facts = dict(zip(METRICS, (world.sum(sums) / n).tolist(), strict=True))
            _check_finite(facts["loss"], grad_norm, step, pairs, micro_batches)
            steps.append({"step": step, **facts, "grad_norm": grad_norm, "lr": lr})
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step + 1 < len(schedule):
                stopping = world.stopping()
                if checkpoint:
                    checkpoint.save_if_due(model, optimizer, steps, reference_B2, at_once=bool(stopping))
                if stopping:
                    raise Stopped(stopping)
            tick()
    return steps


def key_of(pairs: Pairs) -> str:
    """What tells these pairs, in this order, from others: 16 hex digits."""
    rows = zip(pairs.question_B.tolist(), pairs.prompt_B, pairs.chosen_B, pairs.rejected_B, strict=True)
    return hashlib.sha256(repr(list(rows)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _losses(policy, examples, config, micro_batches, world, sums):
    """One loss function per micro-batch of this rank: its share of the step's mean."""
    n = sum(map(len, micro_batches))
    own = micro_batches[world.rank :: world.size]

    def loss_of(rows, weight):
        def loss(module):
            with policy.autocast():
                logps_B2 = examples.logps(module, rows, policy.tokenizer.pad_token_id)
            reference_B2 = torch.as_tensor(examples.reference_B2[rows], dtype=logps_B2.dtype, device=logps_B2.device)
            loss_B, *rewards = dpo_loss(
                logps_B2[:, 0],
                logps_B2[:, 1],
                reference_B2[:, 0],
                reference_B2[:, 1],
                config.beta,
                config.label_smoothing,
            )
            if config.nll:
                n_tokens_B = torch.tensor([len(examples.chosen[i]) for i in rows], device=loss_B.device)
                loss_B = loss_B - config.nll * logps_B2[:, 0] / n_tokens_B
            if weight:
                sums[:] += _metrics(loss_B.detach(), *rewards)
            return weight * loss_B.sum() / n

        return loss

    # Every rank takes part in every step: one without a micro-batch computes one that weighs nothing.
    return [loss_of(rows, 1.0) for rows in own] or [loss_of(micro_batches[0][:1], 0.0)]


def _metrics(loss_B, reward_chosen_B, reward_rejected_B) -> np.ndarray:
    margin_B = reward_chosen_B - reward_rejected_B
    columns = (loss_B, reward_chosen_B, reward_rejected_B, margin_B, (margin_B > 0).float())
    return np.array([float(column.double().sum()) for column in columns])


def _check_finite(loss, grad_norm, step, pairs, micro_batches):
    if np.isfinite(loss) and np.isfinite(grad_norm):
        return
    questions = sorted({int(pairs.question_B[i]) for rows in micro_batches for i in rows})
    raise RunError(
        f"DPO step {step}: loss {loss}, gradient norm {grad_norm}; the step's questions (pool indices): {questions}. "
        "No weights were saved. Lower dpo.lr, or look at these pairs"
    )


def _length(examples: Examples, i: int) -> int:
    return len(examples.prompt[i]) + max(len(examples.chosen[i]), len(examples.rejected[i]))
