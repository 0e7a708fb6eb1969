#!/usr/bin/env python3
"""Measure a DPO step beside TRL's DPOTrainer, on one thread of a CPU.

    tools/bench/bench_dpo.py --quick
    tools/bench/bench_dpo.py --json bench.json

SmolLM2-135M in float32 is trained on 32 pairs, 4 to a step: graded pairs of a stored run. That is the beginning of the
demo's, made here up to its pairs in a minute or two (few-shot prompts, answers of a few tokens), or another one of the
same model (--run DIR). The more of a pair is prompt, the more it gains by having it once. Both sides see the same
tokens in the same order, with AdamW, gradient clipping and a cosine schedule. Beside ours, pair by pair
(dpo.micro_pairs=1: what is packed gains nothing by more at once on a CPU), else with the settings of
conf/dpo/default.yaml:

- TRL at its best: reference log-probabilities beforehand, no gradient checkpointing (its padding_free is without effect
  in 1.16, as it warns), the batch at once or pair by pair (gradient accumulation), whichever is faster;
- TRL at its defaults: gradient checkpointing, and a forward of the reference model in every step;
- ours and TRL's best in bfloat16 autocast, on a quarter of the pairs, where the CPU has instructions for it.

Each step is made by all in turn. CPU time is counted: of ours for the whole step with its figures, of TRL for
`training_step`, clipping and `optimizer.step`; medians are shown. reference_share is what ours pays for the reference
beforehand, as a share of a step. Memory is the peak of a fresh process that makes two steps on the longest
pairs, all included; mem_vs_trl_best compares with TRL's best with the batch at once, mem_vs_trl_accumulated with the
same pair by pair. The long case is a Llama of two narrow layers and a vocabulary of 150,000, one pair with a prompt
of 512 tokens and responses of 1,024. max_logp_diff_per_token (nats) and max_logp_diff_per_sum (relative) compare
log-probabilities before training, max_loss_curve_diff the losses of all steps. x_bf16 is ours in bfloat16, in multiples
of its own speed in float32; null where it was not measured. ours_off_float64 and trl_off_float64 are the same per
token, each side beside the model in float64: what rounding alone does here.
--quick: 2 pairs, 1 to a step, memory beside TRL's best only, no long case: it shows that all runs.
It needs the extras `demo` and `test`.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common

os.environ.setdefault("TQDM_DISABLE", "1")  # TRL's bars, which heed nothing else
common.start("trl", "datasets")

import datasets
import numpy as np
import torch
import transformers
import yaml
from dpo_sides import Case, Ours, Theirs

from hpc_saidpo import progress, records
from hpc_saidpo.cli import compose
from hpc_saidpo.dpo.examples import Examples
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.policy.gguf import convert_gguf
from hpc_saidpo.policy.locate import locate
from hpc_saidpo.report.export import finished_stages
from hpc_saidpo.rollouts.engine.machine import has_bfloat16

A_RUN = [  # the demo's, up to its first pairs
    "experiment=demo", "loop.iterations=1", "loop.stop_after=pairs", "evaluate.benchmarks=[]", "probe.fraction=0.004",
    "run.name=pairs", "run.threads=1",
]  # fmt: skip
QUESTIONS = 8, 3  # explored: so many, and so many for each requested pair; about every second one makes a pair
OURS = ("ours",)
BEST = ("TRL best, at once", "TRL best, pair by pair")
THEIRS = (*BEST, "TRL default")
MEMORY = dict(zip(THEIRS, ("trl_best", "trl_accumulated", "trl_default"), strict=True))  # in the figures' names
LONG = {"vocabulary": 150_000, "prompt": 512, "response": 1024}


def main() -> int:
    parser = common.parser(__doc__, "2 pairs, 1 to a step, no long case")
    parser.add_argument("--pairs", type=int, default=32, help="4 to a step (default %(default)s)")
    parser.add_argument("--run", type=Path, help="take the pairs of this stored run of SmolLM2-135M")
    parser.add_argument("--peak-of", nargs=3, metavar=("SIDE", "FOLDER", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak_of:
        side, folder, batch = arguments.peak_of
        print(peak_gib(side, Case(Path(folder), int(batch))))
        return 0
    n, batch = (2, 1) if arguments.quick else (arguments.pairs, 4)
    with tempfile.TemporaryDirectory() as name:
        case = Case(Path(name) / "short", batch)
        load(case, n, arguments.run or started_run(Path(name), n))
        seconds, figures = compare(case, "float32", THEIRS)
        seconds_bf16 = {}
        figures["x_bf16"] = math.nan
        if has_bfloat16():
            seconds_bf16, _ = compare(case, "bfloat16", BEST, max(batch, n // 4))
            # Both are of the same pairs a step.
            figures["x_bf16"] = statistics.median(seconds["ours"]) / statistics.median(seconds_bf16["ours"])
        figures |= {**times(seconds), **(times(seconds_bf16, "_bf16") if seconds_bf16 else {})}
        peak = {"": memory(case, THEIRS[:1] if arguments.quick else THEIRS)}
        if not arguments.quick:
            peak["long_"] = memory(long_case(Path(name), case), THEIRS)
    for prefix, gib in peak.items():
        figures |= {f"{prefix}{key(side)}_peak_gib": value for side, value in gib.items()}
        shares = {f"mem_vs_{MEMORY[side]}": gib["ours"] / value for side, value in gib.items() if side != "ours"}
        figures |= {prefix + name: value for name, value in shares.items()}
    show({**seconds, **{f"{side}, bfloat16": s for side, s in seconds_bf16.items()}}, figures)
    common.write_figures(figures, arguments)
    return 0


def load(case: Case, n: int, run: Path) -> None:
    """The demo's model, converted, and n pairs of a run, into the case's folder."""
    (case.folder / "model").mkdir(parents=True)
    demo = compose.from_overrides(["experiment=demo"])
    convert_gguf(locate(demo.policy.path), case.folder / "model")
    stages = finished_stages(run, "pairs")
    table = records.Pairs.concat([some[0].read("pairs", records.Pairs) for some in stages.values()])
    rollouts = yaml.safe_load((run / "config.yaml").read_text())["rollouts"]
    if len(table) < n:
        sys.exit(f"{run} has {len(table)} pairs, but {n} were requested: lower --pairs, or name a longer run")
    case.write(table.take(range(n)), rollouts["prompt"]["chat"], rollouts["stop"])


def started_run(root: Path, n: int) -> Path:
    """A run of the demo that has made about n pairs, or more."""
    few, each = QUESTIONS
    overrides = [*A_RUN, f"sampler.n_questions={few + each * n}", f"run.root={root}"]
    line = [sys.executable, "-m", "hpc_saidpo", *overrides]
    done = subprocess.run(line, cwd=common.HOME, capture_output=True, text=True)
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
    policy, table = case.policy(precision), case.table.take(range(n or len(case.table)))
    ours = Ours(policy, table, case.examples(policy, table), case.batch)
    others = {side: Theirs(side, policy, ours.in_order, case.batch, case.folder) for side in sides}
    figures = agreement(ours, others[BEST[0]])
    going, seconds = {side: other.steps() for side, other in others.items()}, {side: [] for side in sides}

    def between() -> None:
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
    figures |= throughput(ours, *(min(statistics.median(seconds[s]) for s in some) for some in (OURS, BEST)))
    return seconds, figures


def throughput(ours: Ours, ours_s: float, theirs_s: float) -> dict[str, float]:
    """Tokens and model-FLOPs of a step, per CPU-second.

    Tokens are those of both sequences of a pair, prompt and response: TRL reads them all, ours the prompt once. FLOPs
    are those of the weights (6 per weight and token that is read; the head's at responses only), over the speed of a
    large product of float32 matrices on this thread.
    """
    examples, model, n = ours.in_order, ours.policy.model, len(ours.table)
    prompt, responses = (
        sum(map(len, columns)) for columns in (examples.prompt, [*examples.chosen, *examples.rejected])
    )
    n_head = model.get_output_embeddings().weight.numel()
    n_body = sum(p.numel() for p in model.parameters()) - n_head
    peak, steps = peak_flops(), n / ours.batch

    def share(n_read: int, seconds: float) -> float:
        return 6 * (n_body * n_read + n_head * responses) / steps / seconds / peak

    return {
        "tokens_per_cpu_s": (2 * prompt + responses) / steps / ours_s,
        "trl_tokens_per_cpu_s": (2 * prompt + responses) / steps / theirs_s,
        "flops_utilisation": share(prompt + responses, ours_s),
        "trl_flops_utilisation": share(2 * prompt + responses, theirs_s),
    }


def peak_flops(n: int = 1536) -> float:
    """Floating-point operations of a product of float32 matrices, per CPU-second."""
    one, other = torch.randn(2, n, n)
    return 2 * n**3 / min(common.cpu_s(lambda: one @ other)[0] for _ in range(8))


@torch.no_grad()
def agreement(ours: Ours, theirs: Theirs) -> dict[str, float]:
    """Log-probabilities of the first batch's responses, before training."""
    examples, rows = ours.in_order, range(ours.batch)
    with ours.policy.autocast():
        logps = examples.logps(ResponseLogps(ours.policy.model, ours.config.head_tokens), rows).by_response
    expected = theirs.token_logps()
    figures = {"max_logp_diff_per_token": largest(logps, expected)}
    sums = zip(logps, expected, strict=True)
    figures["max_logp_diff_per_sum"] = max(float(((a.sum() - b.sum()) / b.sum()).abs()) for a, b in sums)
    if ours.policy.precision == torch.float32:
        exact = alone(copy.deepcopy(ours.policy.model).double(), examples, rows)
        figures |= {"ours_off_float64": largest(logps, exact), "trl_off_float64": largest(expected, exact)}
    return figures


def largest(logps: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest difference of a token's log-probability."""
    return max(float((a - b).abs().max()) for a, b in zip(logps, expected, strict=True))


def alone(model: torch.nn.Module, examples: Examples, rows: Sequence[int]) -> list[torch.Tensor]:
    """Log-probabilities of each response's tokens behind its prompt, with nothing else in the row."""
    logps = []
    for i in rows:
        for response in (examples.chosen[i], examples.rejected[i]):
            ids = torch.tensor([examples.prompt[i] + response])
            logits = model(ids).logits[0, len(examples.prompt[i]) - 1 : -1]
            logps.append(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0])
    return logps


def key(side: str) -> str:
    return side.lower().replace(",", "").replace(" ", "_")


def times(seconds: dict[str, list[float]], suffix: str = "") -> dict[str, float]:
    """CPU time of the others in multiples of ours, medians."""
    median_s = common.medians(seconds)
    ratio = {key(side): value / median_s["ours"] for side, value in median_s.items() if side != "ours"}
    ratio["trl_best"] = min(ratio[key(side)] for side in BEST)
    return {f"x_{name}{suffix}": value for name, value in ratio.items()}


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


def memory(case: Case, sides: Sequence[str]) -> dict[str, float]:
    """The peak memory in GiB of our step and of the steps of `sides`. Each runs in its own process."""
    words = ("--peak-of", case.folder, case.batch)
    return {side: float(common.in_new_process(__file__, words[0], side, *words[1:])) for side in (*OURS, *sides)}


def peak_gib(side: str, case: Case) -> float:
    """Peak memory of two steps of one side, in this process."""
    policy = case.policy()
    widest = np.argsort(-case.examples(policy, case.table).width_B)[: case.batch]
    table = case.table.take([*widest, *widest])  # two steps: the first makes the optimizer's state
    ours = Ours(policy, table, case.examples(policy, table), case.batch)
    if side == "ours":
        common.reset_peak()
        ours.train(lambda: None)
    else:
        examples, policy.model, ours = ours.in_order, None, None  # TRL loads a model of its own
        common.reset_peak()
        list(Theirs(side, policy, examples, case.batch, case.folder).steps())
    return common.memory_gib()


def show(seconds: dict[str, list[float]], figures: dict[str, float]) -> None:
    print(f"\n{'CPU-seconds a step':34}{'median':>12}{'fastest':>12}{'slowest':>12}")
    for side, some in seconds.items():
        print(f"{side:34}{statistics.median(some):12.2f}{min(some):12.2f}{max(some):12.2f}")
    common.show_figures(figures)


if __name__ == "__main__":
    progress.log.disabled = True
    datasets.disable_progress_bars()
    sys.exit(main())
