"""The two sides of bench_dpo on the same pairs: a round of ours, and TRL's trainer step by step."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import datasets
import torch
import transformers
import trl

from hpc_saidpo import progress, records, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.dpo.examples import Examples, tokenise
from hpc_saidpo.dpo.schedule import batches
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.parallel.task import Task
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.store.stage import Stage

LR, SEED = 2e-5, 0


@dataclass
class Case:
    """A folder with a model and pairs."""

    folder: Path
    batch: int

    def policy(self, precision: str = "float32") -> Policy:
        config = settings.Policy(path=str(self.folder / "model"), precision=precision)
        return Policy.load(config.path, config, torch.device("cpu"))

    @property
    def table(self) -> records.Pairs:
        return Stage(self.folder / "pairs").read("pairs", records.Pairs)

    def write(self, table: records.Pairs, chat: bool, stop: list[str]) -> None:
        stage = Stage(self.folder / "pairs")
        stage.prepare()
        stage.write("pairs", table)
        stage.write_json("prompt", {"chat": chat, "stop": stop})

    def examples(self, policy: Policy, table: records.Pairs) -> Examples:
        return tokenise(table, policy, **Stage(self.folder / "pairs").read_json("prompt"))


@dataclass
class Ours:
    """A round of ours, which calls `between` after each step."""

    policy: Policy
    table: records.Pairs
    examples: Examples
    batch: int
    seconds: list[float] = field(default_factory=list)
    reference_s: float = 0.0

    @property
    def config(self) -> settings.Dpo:
        changed = {"lr": LR, "warmup": 0, "nll": 0, "batch_pairs": self.batch, "micro_pairs": 1}
        return compose.from_overrides(["experiment=demo", *(f"dpo.{k}={v}" for k, v in changed.items())]).dpo

    def train(self, between: Callable[[], None]) -> list[float]:
        """The losses of the steps; their CPU-seconds are noted."""

        @contextlib.contextmanager
        def watch(label: str, total: int, is_root: bool, n_done: int = 0, *_: object) -> Iterator[Task]:
            started = time.process_time()

            def advance() -> None:
                nonlocal started
                if label.startswith("DPO"):
                    self.seconds.append(time.process_time() - started)
                    between()
                    started = time.process_time()

            yield Task(advance=advance)
            if not label.startswith("DPO"):
                self.reference_s = time.process_time() - started

        lesson = Lesson(self.table, self.examples, SEED, iteration=0)
        with mock.patch.object(progress, "show", watch):
            return [step["loss"] for step in train(self.policy, lesson, self.config, World())]

    @property
    def in_order(self) -> Examples:
        """The examples in the order of the round."""
        schedule = batches(self.examples.width_B, self.config, SEED, 0)
        order = [i for step in schedule for micro in step for i in micro]
        columns = {name: [getattr(self.examples, name)[i] for i in order] for name in ("prompt", "chosen", "rejected")}
        return replace(self.examples, **columns)


class Tokenised(trl.DPOTrainer):
    """TRL's trainer on token ids."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


class Theirs:
    """TRL's trainer, step by step over pairs in their order."""

    def __init__(self, side: str, policy: Policy, examples: Examples, batch: int, folder: Path):
        best, pieces = side != "TRL default", batch if "pair by pair" in side else 1
        arguments = trl.DPOConfig(
            output_dir=str(folder / "trl"), per_device_train_batch_size=batch // pieces, beta=0.1, learning_rate=LR,
            lr_scheduler_type="cosine", warmup_steps=0, max_grad_norm=1.0, max_length=None,
            train_sampling_strategy="sequential", precompute_ref_log_probs=best, gradient_checkpointing=not best,
            bf16=False, use_cpu=True, report_to=[], disable_tqdm=True,
        )  # fmt: skip
        rows = {"prompt_ids": examples.prompt, "chosen_ids": examples.chosen, "rejected_ids": examples.rejected}
        self.trainer = Tokenised(
            model=transformers.AutoModelForCausalLM.from_pretrained(
                policy.path, dtype=torch.float32, trust_remote_code=False
            ),
            args=arguments, processing_class=policy.tokenizer, train_dataset=datasets.Dataset.from_dict(rows),
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = pieces
        parts = list(self.trainer.get_train_dataloader())
        self.batches = [parts[i : i + pieces] for i in range(0, len(parts), pieces)]
        self.trainer.create_optimizer_and_scheduler(len(self.batches))
        self.precision, self.losses = policy.precision, []

    def steps(self) -> Iterator[float]:
        """CPU-seconds of each step."""
        for batch in self.batches:
            started = time.process_time()
            loss = self.step(batch)
            yield time.process_time() - started
            self.losses.append(loss)

    def step(self, batch: list[dict]) -> float:
        trainer = self.trainer
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == torch.bfloat16):
            loss = sum(trainer.training_step(trainer.model, inputs) for inputs in batch)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        trainer.optimizer.zero_grad()
        return loss.item()

    @torch.no_grad()
    def token_logps(self) -> list[torch.Tensor]:
        """Log-probabilities of the first batch: chosen and rejected, pair by pair."""
        (batch,) = self.batches[0]
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        output = self.trainer.model(
            batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
        rows = [row[m] for row, m in zip(output.log_probs, batch["completion_mask"][:, 1:].bool(), strict=True)]
        half = len(rows) // 2
        return [rows[i + half * r] for i in range(half) for r in range(2)]
