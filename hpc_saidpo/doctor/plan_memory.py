"""Compare the memory of strategies, LoRA and checkpointing on the GPUs of a job. For `hpc-saidpo plan`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from transformers import AutoConfig

from .. import settings
from ..errors import RunError, shown, words_of
from ..settings.whole import Settings
from . import memory
from .known_models import KNOWN_MODELS
from .memory import GIB

STRATEGIES = ("single", "ddp", "fsdp")


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a job: their number, and the memory of each in GiB."""

    n: int
    gib: float


@dataclass(frozen=True)
class Plan:
    """One way to train: its settings, and the bytes of training and of rollouts on one GPU, by part."""

    dpo: settings.Dpo
    training: dict[str, float]
    rollouts: dict[str, float]

    @property
    def is_lora(self) -> bool:
        return self.dpo.lora.rank is not None

    @property
    def peak_gib(self) -> float:
        return max(sum(self.training.values()), sum(self.rollouts.values())) / GIB


def model_called(path: str) -> memory.Model:
    """The sizes of a model: a name of `KNOWN_MODELS`, or a path as policy.path has it.

    Raises:
        RunError: there is no configuration of a model at the path.
    """
    if path in KNOWN_MODELS:
        return memory.model_of(AutoConfig.for_model(**KNOWN_MODELS[path]))
    try:
        return memory.model_at(path)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{shown(path)}: no model's configuration there ({words_of(error)}): name one of "
            f"{', '.join(KNOWN_MODELS)}, or a folder with a config.json"
        ) from None


def plans_of(model: memory.Model, config: Settings, n_prompt: int, n_gpus: int, lora_rank: int | None) -> list[Plan]:
    """Plan every way to train that the run's other settings permit, the preferred ones first.

    Args:
        n_prompt: tokens of a prompt.
        n_gpus: number of GPUs that share the training.
        lora_rank: rank of the plans with LoRA.
    """
    n_bytes = 4 if config.policy.precision == "float32" else 2
    lengths = memory.Lengths(n_prompt, config.rollouts.max_new_tokens)
    rollouts = memory.rollouts(model, config.rollouts, n_prompt, n_bytes)
    plans = []
    for rank, strategy, checkpointing in itertools.product((None, lora_rank), STRATEGIES, (False, True)):
        adapters = dataclasses.replace(config.dpo.lora, rank=rank)
        changed = {"strategy": strategy, "lora": adapters, "checkpointing": checkpointing}
        try:
            whole = dataclasses.replace(config, dpo=dataclasses.replace(config.dpo, **changed))
        except ValidationError:  # a run would refuse this way too
            continue
        training = memory.training(model, whole.dpo, lengths, whole.run.deterministic, n_gpus, n_bytes)
        plans.append(Plan(whole.dpo, training, rollouts))
    return plans


def describe_sizes(config: Settings, n_prompt: int) -> str:
    """The token counts behind the figures, in words."""
    lengths = memory.Lengths(n_prompt, config.rollouts.max_new_tokens)
    size = f"tokens: {n_prompt} of a prompt, 2 × {config.rollouts.max_new_tokens} of its responses"
    return f"{size}, {memory.micro_batch_tokens(config.dpo, lengths):,} of a micro-batch"


def tables(plans: list[Plan], gpu_gib: float) -> Iterator[str]:
    """Format the plans of a model: a table for each strategy, then a table of the rollouts."""
    for strategy in dict.fromkeys(p.dpo.strategy for p in plans):
        chosen = [p for p in plans if p.dpo.strategy == strategy]
        shown = [part for part in chosen[0].training if any(p.training[part] for p in chosen)]
        rows = [["LoRA", "checkpointing", *shown, "training", "fits"]]
        for p in chosen:
            parts, whole = [gib(p.training[part]) for part in shown], sum(p.training.values())
            setting = [str(p.dpo.lora.rank or "-"), "yes" if p.dpo.checkpointing else "-"]
            rows.append([*setting, *parts, gib(whole), "yes" if whole / GIB <= gpu_gib else "no"])
        yield f"{strategy}\n" + markdown(rows)
    parts = plans[0].rollouts
    whole = sum(parts.values())
    cells = [*map(gib, [*parts.values(), whole]), "yes" if whole / GIB <= gpu_gib else "no"]
    yield "for every strategy\n" + markdown([[*parts, "rollouts", "fits"], cells])


def brief_table(plans: Mapping[str, list[Plan]]) -> str:
    """Format a line for each model: GiB of training on each GPU without and with checkpointing, by strategy."""
    columns = [(lora, strategy) for lora in (False, True) for strategy in STRATEGIES]
    rows = [["model", *(f"{strategy}{', LoRA' * lora}" for lora, strategy in columns), "rollouts"]]
    for name, of_model in plans.items():
        cells = []
        for lora, strategy in columns:
            chosen = [p for p in of_model if p.dpo.strategy == strategy and p.is_lora == lora]
            cells.append(", ".join(gib(sum(p.training.values()), digits=0) for p in chosen) or "-")
        rows.append([name, *cells, gib(sum(of_model[0].rollouts.values()), digits=0)])
    return markdown(rows)


def advice(plans: list[Plan], gpus: Gpus) -> str:
    """The settings of the first plan that fits, or the reason why none fits and a remedy."""
    decoding, cache = sum(plans[0].rollouts.values()) / GIB, plans[0].rollouts["keys and values"] / GIB
    if decoding - cache > gpus.gib:
        return (
            f"does not fit: for rollouts every GPU holds the whole policy in float32 and a copy of it, "
            f"{decoding - cache:.0f} of {gpus.gib:g} GiB: larger GPUs, or a smaller model"
        )
    if decoding > gpus.gib:
        return f"the rollouts do not fit ({decoding:.0f} of {gpus.gib:g} GiB): lower rollouts.generate.rows"
    wanted = ("single",) if gpus.n == 1 else ("ddp", "fsdp")
    for p in plans:
        if p.dpo.strategy in wanted and p.peak_gib <= gpus.gib:
            words = [f"dpo.strategy={p.dpo.strategy}"] * (gpus.n > 1) + [f"dpo.lora.rank={p.dpo.lora.rank}"] * p.is_lora
            words += [f"dpo.checkpointing={str(p.dpo.checkpointing).lower()}"]
            training = sum(p.training.values()) / GIB
            return f"{' '.join(words)}: training {training:.1f}, rollouts {decoding:.1f} of {gpus.gib:g} GiB"
    return "training does not fit: more GPUs with dpo.strategy=fsdp, a lower dpo.micro_pairs or rollouts.max_new_tokens"


def gib(n_bytes: float, digits: int = 1) -> str:
    """Bytes as a number of GiB."""
    return f"{n_bytes / GIB:.{digits}f}"


def markdown(rows: list[list[str]]) -> str:
    """Format a header and rows as an aligned Markdown table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.rjust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("-" * (w - 1) + ":" for w in widths) + " |", *lines[1:]])
