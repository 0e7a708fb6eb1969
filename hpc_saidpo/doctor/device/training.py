"""Log-probabilities and DPO rounds of a device against the CPU, alone and in a process group of one."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ... import settings
from ...dpo.arrangement import tried_arrangement, try_arrangement
from ...dpo.checkpoint import Checkpoint
from ...dpo.examples import Examples
from ...dpo.logps import ResponseLogps
from ...dpo.rows import Arrangement, lay_out
from ...dpo.train import Lesson, train
from ...parallel.group import GroupOfOne
from ...parallel.stop import Stopped
from ...parallel.world import World
from ...policy import plain
from ...policy.model import Policy
from ...policy.read import read_weights
from ...records import Pairs
from ...store.stage import Stage
from . import models
from .bench import Bench
from .kernels import relative
from .models import Shape
from .result import Figures, Skipped

CPU = torch.device("cpu")
CONFIGS: dict[str, Callable[[Shape], PreTrainedConfig]] = {
    "llama": models.llama_config,
    "experts": models.experts_config,
}
ARRANGEMENTS: tuple[Arrangement, ...] = ("shared", "packed", "padded")
LENGTHS = ((9, 12, 5), (4, 7, 16), (14, 1, 8))  # tokens of a prompt and of its two responses
HEAD_TOKENS = 16  # fewer than the responses have: the head is computed in several chunks


@dataclass(frozen=True)
class Bounds:
    """The largest allowed differences from float32 on the CPU.

    Attributes:
        nats: of a token's log-probability.
        gradient: of the gradients, relative to their norm.
        loss: of a step's mean loss.
        change: of the change of the weights in a round, relative to its norm. AdamW divides a gradient by its own size,
            so that rounding decides the sign of a small one.
    """

    nats: float
    gradient: float
    loss: float
    change: float


BOUNDS = {
    torch.float32: Bounds(nats=1e-4, gradient=1e-4, loss=1e-4, change=5e-3),
    torch.bfloat16: Bounds(nats=0.3, gradient=0.1, loss=0.02, change=0.3),
}


def log_probabilities(bench: Bench, figures: Figures) -> None:
    """Log-probabilities of responses and their gradients, in every arrangement of pairs in rows."""
    for name, config in CONFIGS.items():
        _log_probabilities(bench, figures, name, models.small_model(config(bench.sizes.small), CPU))


def _log_probabilities(bench: Bench, figures: Figures, name: str, model: PreTrainedModel) -> None:
    shape, policy = bench.sizes.small, models.policy_of(model, CPU)
    exact = _with_gradients(policy, lambda p: _plain_logps(p, shape))
    policy = dataclasses.replace(policy, model=models.moved(model, bench.device), device=bench.device)
    for precision, bounds in BOUNDS.items():
        here = dataclasses.replace(policy, precision=precision)
        kind = f"{name}_{str(precision).removeprefix('torch.')}"
        for arrangement in ARRANGEMENTS:
            logps, gradient = _with_gradients(here, lambda p, a=arrangement: _arranged_logps(p, shape, a))
            main, place = arrangement == "shared", f"{kind}_{arrangement}"
            figures.add(f"{place}_nats", float((logps - exact[0]).abs().max()), most=bounds.nats, show=main)
            figures.add(f"{place}_gradient", relative(gradient, exact[1]), most=bounds.gradient, show=main)
        tried = try_arrangement(here.model, precision)
        reasons = "; ".join(f"{way}: {reason}" for way, reason in tried.failed.items())
        figures.note(f"{kind}_arrangement", tried.way, show=False)
        figures.require(tried.way == "shared", f"{kind}: pairs would be trained {tried.way}, not shared ({reasons})")


def _tokens(shape: Shape) -> tuple[list[list[int]], list[tuple[list[int], list[int]]]]:
    """Prompts, and two responses to each."""
    rows = [[models.random_ids(shape, 1, n, 10 * i + j)[0] for j, n in enumerate(row)] for i, row in enumerate(LENGTHS)]
    return [prompt for prompt, *_ in rows], [(first, second) for _, first, second in rows]


def _plain_logps(policy: Policy, shape: Shape) -> torch.Tensor:
    pairs = zip(*_tokens(shape), strict=True)
    return torch.cat([plain.logps(policy.model, prompt, r)[0] for prompt, both in pairs for r in both])


def _arranged_logps(policy: Policy, shape: Shape, arrangement: Arrangement) -> torch.Tensor:
    batch = lay_out(*_tokens(shape), 0, arrangement)
    return ResponseLogps(policy.model, HEAD_TOKENS)(batch).token_N


def _with_gradients(policy: Policy, compute: Callable[[Policy], torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities [N], and the gradients of their weighted sum as one vector; on the CPU."""
    with policy.autocast():
        logp_N = compute(policy)
    weight_N = torch.linspace(-1.0, 2.0, len(logp_N), device=logp_N.device)
    found = torch.autograd.grad((logp_N * weight_N).sum(), list(policy.model.parameters()), allow_unused=True)
    zeros = [torch.zeros_like(p) if g is None else g for p, g in zip(policy.model.parameters(), found, strict=True)]
    return logp_N.detach().float().cpu(), torch.cat([g.detach().float().flatten().cpu() for g in zeros])


@dataclass(frozen=True)
class Round:
    """The result of a DPO round: the figures of its steps, and the change of the weights that were saved, [N].

    Attributes:
        was_resumed: it went on from a checkpoint, which holds the reference log-probabilities.
    """

    steps: list[dict]
    change_N: torch.Tensor
    was_resumed: bool = False


def dpo_round(bench: Bench, figures: Figures) -> None:
    """A DPO round of two steps in float32 and in bfloat16, with its saved weights, against the CPU in float32."""
    exact = train_round(bench, CPU, torch.float32)
    for precision, bounds in BOUNDS.items():
        made = train_round(bench, bench.device, precision)
        compare_rounds(figures, str(precision).removeprefix("torch."), made, exact, bounds)


def dpo_resumed(bench: Bench, figures: Figures) -> None:
    """A DPO round that is stopped in its first step and goes on from its checkpoint, against the round in one go."""
    whole = train_round(bench, bench.device, torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder))
        try:
            train_round(bench, bench.device, torch.float32, _StoppedWorld(), stage)
        except Stopped:
            figures.note("checkpoint", ", ".join(sorted(path.name for path in Path(folder).iterdir())))
        figures.require(any(Path(folder).iterdir()), "the stopped round has written no checkpoint")
        made = train_round(bench, bench.device, torch.float32, stage=stage)
    figures.require(made.was_resumed, "the round began again: its checkpoint was not read")
    compare_rounds(figures, "resumed", made, whole, BOUNDS[torch.float32])


class _StoppedWorld(World):
    """A world in which a signal arrives during the first optimizer step."""

    def stop_signal(self) -> str:
        return "SIGTERM"


def lora_round(bench: Bench, figures: Figures) -> None:
    """A DPO round of adapters. Each device draws other adapters, so only the first loss is compared with the CPU's."""
    if importlib.util.find_spec("peft") is None:
        raise Skipped("the package peft is not installed")
    lora = settings.Lora(rank=4)
    exact = train_round(bench, CPU, torch.float32, lora=lora)
    made = train_round(bench, bench.device, torch.float32, lora=lora)
    figures.add("first_loss", abs(made.steps[0]["loss"] - exact.steps[0]["loss"]), most=BOUNDS[torch.float32].loss)
    ratio = float(made.change_N.norm() / exact.change_N.norm())
    figures.add("change_of_weights_relative_to_cpu", ratio, most=3.0)
    figures.require(ratio > 1 / 3, "the weights changed much less than on the CPU")


def distributed(bench: Bench, figures: Figures) -> None:
    """DDP and FSDP in a process group of one (NCCL on a GPU, Gloo on a CPU), against the same without a group."""
    world = _group_of_one(bench)
    exact = {precision: train_round(bench, bench.device, precision) for precision in BOUNDS}
    for strategy in ("ddp", "fsdp"):
        for precision, bounds in BOUNDS.items():
            made = train_round(bench, bench.device, precision, world, strategy=strategy)
            name = f"{strategy}_{str(precision).removeprefix('torch.')}"
            compare_rounds(figures, name, made, exact[precision], bounds)


def collectives(bench: Bench, figures: Figures) -> None:
    """The collectives that training uses, in a process group of one: every result equals what was sent."""
    world = _group_of_one(bench)
    with world.group():
        backend, errors = world.exercise(1 << 20)
    figures.note("backend", backend)
    for name, error in errors.items():
        figures.add(f"{name}_error", error, most=0.0, show=False)
    figures.note("ran", ", ".join(errors))


def _group_of_one(bench: Bench) -> GroupOfOne:
    if bench.device.type not in ("cuda", "cpu"):
        raise Skipped(f"there is no process group for a {bench.device.type}")
    return GroupOfOne(bench.device)


def compare_rounds(figures: Figures, name: str, made: Round, exact: Round, bounds: Bounds) -> None:
    """Add the differences of two rounds: of the loss, the gradient norm and the change of the weights."""
    loss = max(abs(a["loss"] - b["loss"]) for a, b in zip(made.steps, exact.steps, strict=True))
    norm = max(abs(a["grad_norm"] / b["grad_norm"] - 1) for a, b in zip(made.steps, exact.steps, strict=True))
    figures.add(f"{name}_loss", loss, most=bounds.loss, show=False)
    figures.add(f"{name}_gradient_norm", norm, most=bounds.gradient, show=False)
    figures.add(f"{name}_weights", relative(made.change_N, exact.change_N), most=bounds.change)


def train_round(
    bench: Bench, device: torch.device, precision: torch.dtype, world: World | None = None, stage: Stage | None = None,
    **options: Any,
) -> Round:  # fmt: skip
    """Train a small random model on random pairs, save it, and read the saved weights.

    Args:
        world: None: one process without a process group.
        stage: the round goes on from the checkpoint there, and writes one when it is stopped.
        options: further settings of `dpo`.
    """
    shape = bench.sizes.small
    policy = models.policy_of(models.small_model(models.llama_config(shape), device), device, precision)
    before = {name: weight.detach().cpu().clone() for name, weight in policy.model.state_dict().items()}
    pairs, examples = random_pairs(policy, [models.random_ids(shape, 8, n, n) for n in LENGTHS[0]])
    config = settings.Dpo(lr=1e-4, batch_pairs=4, micro_pairs=2, head_tokens=HEAD_TOKENS, **options)
    saved: dict[str, torch.Tensor] = {}
    computed: list[np.ndarray] = []

    def reference(compute: Callable[[], np.ndarray]) -> np.ndarray:
        computed.append(compute())
        return computed[0]

    def save() -> None:
        with tempfile.TemporaryDirectory() as folder:
            policy.save(Path(folder), world)
            saved.update(read_weights(folder).state_dict())

    world = world or World()
    checkpoint = Checkpoint(stage, math.inf, "round", world) if stage else None
    steps = train(policy, Lesson(pairs, examples, seed=0, iteration=0), config, world, checkpoint, save, reference)
    change_N = torch.cat([(saved[name] - weight).flatten() for name, weight in before.items()])
    return Round(steps, change_N, was_resumed=not computed)


def random_pairs(policy: Policy, tokens: Sequence[list[list[int]]]) -> tuple[Pairs, Examples]:
    """Pairs of token ids.

    Args:
        tokens: the prompts, the chosen and the rejected responses.
    """
    prompts, chosen, rejected = tokens
    pairs = Pairs.from_rows((i, 0, 0, 1, True, True, 0, 0.5, 1, 1, str(i), "", "", "") for i in range(len(prompts)))
    return pairs, Examples(prompts, chosen, rejected, arrangement=tried_arrangement(policy))
