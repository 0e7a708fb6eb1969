#!/usr/bin/env python3
"""Measure a DPO step beside TRL's DPOTrainer, on one thread of a CPU.

    python tools/bench_dpo.py --quick
    python tools/bench_dpo.py --json bench.json

SmolLM2-135M in float32 is trained on 32 pairs, 4 to a step: graded pairs of a stored run. That is the beginning of the
demo's, made here up to its pairs in a minute or two (few-shot prompts, answers of a few tokens), or another one of the
same model (--run DIR). The more of a pair is prompt, the more it gains by having it once. Both sides see the same
tokens in the same order, with AdamW, gradient clipping and a cosine schedule. Beside ours, pair by pair
(dpo.micro_pairs=1: what is packed gains nothing by more at once on a CPU), else with the settings of
conf/dpo/default.yaml:

- TRL at its best: reference log-probabilities beforehand, no gradient checkpointing (its padding_free is without effect
  in 1.16, as it warns), the batch at once or pair by pair (gradient accumulation), whichever is faster;
- TRL at its defaults: gradient checkpointing, and a forward of the reference model in every step;
- ours and TRL's best in bfloat16 autocast, on a quarter of the pairs: few CPUs are made for it
  (--quick leaves it out where this one is not).

Each step is made by all in turn. CPU time is counted: of ours for the whole step with its figures, of TRL for
`training_step`, clipping and `optimizer.step`; medians are shown. reference_share is what ours pays for the reference
beforehand, as a share of a step. Memory is the peak of a fresh process that makes two steps on the longest
pairs, all included; mem_vs_trl_best compares with TRL's best with the batch at once, mem_vs_trl_accumulated with the
same pair by pair. The long case is a Llama of two narrow layers and a vocabulary of 150,000, one pair with a prompt
of 512 tokens and responses of 1,024. max_logp_diff_per_token (nats) and max_logp_diff_per_sum (relative) compare
log-probabilities before training, max_loss_curve_diff the losses of all steps. ours_off_float64 and trl_off_float64 are
the same per token, each side beside the model in float64: what rounding alone does here.
--quick: 2 pairs, 1 to a step, no long case: it shows that all runs.
It needs the extras `demo` and `test`.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))
os.environ.setdefault("TQDM_DISABLE", "1")  # TRL's bars, which heed nothing else

import datasets
import numpy as np
import torch
import transformers
import trl
import yaml

from hpc_saidpo import progress, records, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.dpo import train
from hpc_saidpo.dpo.examples import Examples, tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.schedule import batches
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import gguf, locate, model
from hpc_saidpo.report import export
from hpc_saidpo.store.stage import Stage

LR, SEED = 2e-5, 0
A_RUN = [  # the demo's, up to its first pairs
    "experiment=demo", "loop.iterations=1", "loop.stop_after=pairs", "evaluate.benchmarks=[]", "probe.fraction=0.004",
    "run.name=pairs", "run.threads=1",
]  # fmt: skip
QUESTIONS = 8, 3  # explored: so many, and so many for each pair asked for; about every second one gives a pair
BEST = ("TRL best, at once", "TRL best, pair by pair")
THEIRS = (*BEST, "TRL default")
MEMORY = ("trl_best", "trl_accumulated", "trl_default")  # of THEIRS, in the figures' names
LONG = {"vocabulary": 150_000, "prompt": 512, "response": 1024}


@dataclass
class Case:
    """A folder with a model and pairs."""

    folder: Path
    batch: int

    def policy(self, precision: str = "float32") -> model.Policy:
        settings = settings.Policy(path=str(self.folder / "model"), precision=precision)
        return model.Policy.load(settings.path, settings, torch.device("cpu"))

    @property
    def table(self) -> records.Pairs:
        return Stage(self.folder / "pairs").read("pairs", records.Pairs)

    def write(self, table: records.Pairs, chat: bool, stop: list[str]) -> None:
        stage = Stage(self.folder / "pairs")
        stage.prepare()
        stage.write("pairs", table)
        stage.write_json("prompt", {"chat": chat, "stop": stop})

    def examples(self, own: model.Policy, table: records.Pairs) -> Examples:
        return tokenise(table, own, **Stage(self.folder / "pairs").read_json("prompt"))


@dataclass
class Ours:
    """A round of ours, which calls `between` after each step."""

    own: model.Policy
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
        def watch(label, total):
            started = time.process_time()

            def tick(*_):
                nonlocal started
                if label.startswith("DPO"):
                    self.seconds.append(time.process_time() - started)
                    between()
                    started = time.process_time()

            yield tick
            if not label.startswith("DPO"):
                self.reference_s = time.process_time() - started

        arguments = self.own, self.table, self.examples, self.config, World(), SEED, 0, False
        return [step["loss"] for step in train.train(*arguments, watch)]

    @property
    def in_order(self) -> Examples:
        """The examples as the round takes them."""
        schedule = batches(self.examples.width_B, self.config, SEED, 0)
        order = [i for step in schedule for micro in step for i in micro]
        columns = {name: [getattr(self.examples, name)[i] for i in order] for name in ("prompt", "chosen", "rejected")}
        return replace(self.examples, **columns)


class Tokenised(trl.DPOTrainer):
    """TRL's trainer on token ids that are given."""

    def _prepare_dataset(self, dataset, *_):
        return dataset


class Theirs:
    """TRL's trainer, step by step over pairs in their order."""

    def __init__(self, side: str, own: model.Policy, examples: Examples, batch: int, folder: Path):
        best, pieces = side != "TRL default", batch if "pair by pair" in side else 1
        arguments = trl.DPOConfig(
            output_dir=str(folder / "trl"), per_device_train_batch_size=batch // pieces, beta=0.1, learning_rate=LR,
            lr_scheduler_type="cosine", warmup_steps=0, max_grad_norm=1.0, max_length=None,
            train_sampling_strategy="sequential", precompute_ref_log_probs=best, gradient_checkpointing=not best,
            bf16=False, use_cpu=True, report_to=[], disable_tqdm=True,
        )  # fmt: skip
        rows = {"prompt_ids": examples.prompt, "chosen_ids": examples.chosen, "rejected_ids": examples.rejected}
        self.trainer = Tokenised(
            model=transformers.AutoModelForCausalLM.from_pretrained(own.path, dtype=torch.float32), args=arguments,
            processing_class=own.tokenizer, train_dataset=datasets.Dataset.from_dict(rows),
        )  # fmt: skip
        self.trainer.current_gradient_accumulation_steps = pieces
        parts = list(self.trainer.get_train_dataloader())
        self.batches = [parts[i : i + pieces] for i in range(0, len(parts), pieces)]
        self.trainer.create_optimizer_and_scheduler(len(self.batches))
        self.precision, self.losses = own.precision, []

    def steps(self) -> Iterator[float]:
        """CPU-seconds of each step."""
        for batch in self.batches:
            started = time.process_time()
            loss = self.step(batch)
            yield time.process_time() - started
            self.losses.append(loss)

    def step(self, batch) -> float:
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
        """Of the first batch: chosen and rejected, pair by pair."""
        (batch,) = self.batches[0]
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        found = self.trainer.model(
            batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
        )
        rows = [row[m] for row, m in zip(found.log_probs, batch["completion_mask"][:, 1:].bool(), strict=True)]
        half = len(rows) // 2
        return [rows[i + half * r] for i in range(half) for r in range(2)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 pairs, 1 to a step, no long case")
    parser.add_argument("--json", type=Path, help="write the figures to this file too, as one flat object")
    parser.add_argument("--pairs", type=int, default=32, help="4 to a step (default %(default)s)")
    parser.add_argument("--run", type=Path, help="take the pairs of this stored run of SmolLM2-135M")
    parser.add_argument("--peak-of", nargs=3, metavar=("SIDE", "FOLDER", "BATCH"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak_of:
        side, folder, batch = asked.peak_of
        print(peak_gib(side, Case(Path(folder), int(batch))))
        return 0
    n, batch = (2, 1) if asked.quick else (asked.pairs, 4)
    with tempfile.TemporaryDirectory() as name:
        case = Case(Path(name) / "short", batch)
        load(case, n, asked.run or started_run(Path(name), n))
        seconds, figures = compare(case, "float32", THEIRS)
        seconds_bf16 = {}
        if not asked.quick or "bf16" in Path("/proc/cpuinfo").read_text():
            seconds_bf16, _ = compare(case, "bfloat16", BEST, max(batch, n // 4))
        found = {**figures, **times(seconds), **(times(seconds_bf16, "_bf16") if seconds_bf16 else {})}
        peak = {"": memory(case)}
        if not asked.quick:
            peak["long_"] = memory(long_case(Path(name), case))
    for prefix, gib in peak.items():
        found |= {f"{prefix}{key(side)}_peak_gib": value for side, value in gib.items()}
        shares = {f"mem_vs_{name}": gib["ours"] / gib[side] for name, side in zip(MEMORY, THEIRS, strict=True)}
        found |= {prefix + name: value for name, value in shares.items()}
    show({**seconds, **{f"{side}, bfloat16": s for side, s in seconds_bf16.items()}}, found)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def load(case: Case, n: int, run: Path) -> None:
    """The demo's model, converted, and n pairs of a run, into the case's folder."""
    (case.folder / "model").mkdir(parents=True)
    settings = compose.from_overrides(["experiment=demo"])
    gguf.convert_gguf(locate.locate(settings.policy.path), case.folder / "model")
    stages = export.finished_stages(run, "pairs")
    table = records.Pairs.concat([own[0].read("pairs", records.Pairs) for own in stages.values()])
    told = yaml.safe_load((run / "config.yaml").read_text())["rollouts"]
    if len(table) < n:
        sys.exit(f"{run} has {len(table)} pairs, and {n} are asked for: lower --pairs, or take a longer run")
    case.write(table.take(range(n)), told["prompt"]["chat"], told["stop"])


def started_run(root: Path, n: int) -> Path:
    """A run of the demo that has made about n pairs, or more."""
    few, each = QUESTIONS
    asked = [*A_RUN, f"sampler.n_questions={few + each * n}", f"run.root={root}"]
    done = subprocess.run([sys.executable, "-m", "hpc_saidpo", *asked], cwd=HOME, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"the run that makes the pairs failed:\n{done.stdout}{done.stderr}")
    return root / "pairs"


def compare(
    case: Case, precision: str, sides: Sequence[str], n: int | None = None
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """CPU-seconds of every step of every side, made in turn; and how they agree.

    Args:
        n: pairs; None: all.
    """
    own, table = case.policy(precision), case.table.take(range(n or len(case.table)))
    ours = Ours(own, table, case.examples(own, table), case.batch)
    others = {side: Theirs(side, own, ours.in_order, case.batch, case.folder) for side in sides}
    figures = agreement(ours, others[BEST[0]])
    going, seconds = {side: other.steps() for side, other in others.items()}, {side: [] for side in sides}

    def between():
        for side, steps in going.items():
            seconds[side].append(next(steps))

    losses = ours.train(between)
    for steps in going.values():
        next(steps, None)  # the last loss is noted
    seconds = {"ours": ours.seconds, **seconds}
    figures["max_loss_curve_diff"] = max(
        float(np.abs(np.subtract(losses, other.losses)).max()) for other in others.values()
    )
    figures["reference_share"] = ours.reference_s / len(losses) / statistics.median(ours.seconds)
    return seconds, figures


@torch.no_grad()
def agreement(ours: Ours, theirs: Theirs) -> dict[str, float]:
    """Log-probabilities of the first batch's responses, before training."""
    examples, rows = ours.in_order, range(ours.batch)
    with ours.own.autocast():
        found = examples.logps(ResponseLogps(ours.own.model, ours.config.head_tokens), rows).by_response
    expected = theirs.token_logps()
    figures = {"max_logp_diff_per_token": largest(found, expected)}
    sums = zip(found, expected, strict=True)
    figures["max_logp_diff_per_sum"] = max(float(((a.sum() - b.sum()) / b.sum()).abs()) for a, b in sums)
    if ours.own.precision == torch.float32:
        model = copy.deepcopy(ours.own.model).double()
        exact = alone(model, examples, rows)
        figures |= {"ours_off_float64": largest(found, exact), "trl_off_float64": largest(expected, exact)}
    return figures


def largest(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def alone(model, examples: Examples, rows: Sequence[int]) -> list[torch.Tensor]:
    """Log-probabilities of each response's tokens behind its prompt, with nothing else in the row."""
    found = []
    for i in rows:
        for response in (examples.chosen[i], examples.rejected[i]):
            ids = torch.tensor([examples.prompt[i] + response])
            logits = model(ids).logits[0, len(examples.prompt[i]) - 1 : -1]
            found.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0])
    return found


def key(side: str) -> str:
    return side.lower().replace(",", "").replace(" ", "_")


def times(seconds: dict[str, list[float]], suffix: str = "") -> dict[str, float]:
    """How many times our CPU time the others take, medians."""
    ours, *others = map(statistics.median, seconds.values())
    found = {key(side): other / ours for side, other in zip(list(seconds)[1:], others, strict=True)}
    found["trl_best"] = min(found[key(side)] for side in BEST)
    return {f"x_{name}{suffix}": value for name, value in found.items()}


def long_case(folder: Path, short: Case) -> Case:
    """One long pair, and a model for it with next to no layers and a large vocabulary."""
    case = Case(folder / "long", 1)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 2, "max_position_embeddings": 8192}
    tokenizer = short.policy().tokenizer
    transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=LONG["vocabulary"], tie_word_embeddings=True, **shape, **ends)
    ).save_pretrained(case.folder / "model")
    tokenizer.save_pretrained(case.folder / "model")
    table = short.table.take([0])
    table.prompt_B[:] = [" one" * LONG["prompt"]]
    table.chosen_B[:], table.rejected_B[:] = ([word * LONG["response"]] for word in (" two", " three"))
    table.chosen_finished_B[:] = table.rejected_finished_B[:] = False
    case.write(table, True, [])
    return case


def memory(case: Case) -> dict[str, float]:
    """Peak memory of every side, in a process of its own, GiB."""
    found = {}
    for side in ("ours", *THEIRS):
        line = [sys.executable, __file__, "--peak-of", side, case.folder, case.batch]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"measuring memory failed:\n{done.stderr}")
        found[side] = float(done.stdout.split()[-1])
    return found


def peak_gib(side: str, case: Case) -> float:
    own = case.policy()
    widest = np.argsort(-case.examples(own, case.table).width_B)[: case.batch]
    table = case.table.take([*widest, *widest])  # two steps: the first makes the optimizer's state
    ours = Ours(own, table, case.examples(own, table), case.batch)
    if side == "ours":
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        ours.train(lambda: None)
    else:
        examples, own.model, ours = ours.in_order, None, None
        Path("/proc/self/clear_refs").write_text("5")
        list(Theirs(side, own, examples, case.batch, case.folder).steps())
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def show(seconds: dict[str, list[float]], figures: dict) -> None:
    print(f"\n{'CPU-seconds a step':34}{'median':>12}{'fastest':>12}{'slowest':>12}")
    for side, found in seconds.items():
        print(f"{side:34}{statistics.median(found):12.2f}{min(found):12.2f}{max(found):12.2f}")
    print()
    for name, value in figures.items():
        print(f"{name:34}{value:12.4g}")


if __name__ == "__main__":
    progress.log.disabled = True
    datasets.disable_progress_bars()
    sys.exit(main())
