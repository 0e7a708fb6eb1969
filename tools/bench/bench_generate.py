#!/usr/bin/env python3
"""Measure the rollout engine beside transformers' own ways of generating, on one thread of a CPU.

    tools/bench/bench_generate.py --quick
    tools/bench/bench_generate.py --json bench.json
    tools/bench/bench_generate.py --vllm --json bench.json

SmolLM2-135M in float32 answers questions of the demo's pool (reasoning-gym): 8 responses each, at most 128 new tokens,
temperature 1, without examples (24 questions of all kinds) and behind the demo's four examples (24 questions of one
kind): chunks as a run makes them. Beside our engine, which takes each chunk at its defaults:

- `model.generate` at its best: 48 rows at once, prompts sorted by length (12 questions, two full batches);
- one question at a time with num_return_sequences=8 (one question);
- transformers' continuous batching, `model.generate_batch`, without examples (6 questions: 48 responses at once);
- our engine with linear layers in bfloat16, where the CPU has AMX or AVX512_BF16;
- with --vllm, vLLM's CPU build (all questions, its prefix cache on), in float32, and in bfloat16 where our engine has
  that. Its environment is made if need be (tools/test_vllm.sh). Its start, 90 to 300 s, is not counted.

The cost of a token does not depend on more questions with these three: their batches follow one another.

Each repeat goes through all of them in turn. CPU time is counted and divided by the tokens made; medians are shown.
greedy_match is the share of greedy responses that equal `model.generate`'s token for token; memory is the peak of a
fresh process above what the loaded model takes, at 48 rows. What bfloat16 changes is measured on the same texts:
the share of positions with the same likeliest token, and the total variation between the next-token distributions.
Early decision (rollouts.adaptive) is measured in tokens, with the micro model on its own arithmetic: tokens per
question that gives a pair, against 8 fixed responses, on its whole pool and on those questions that give pairs.
rows_share is the mean share of rows that have a response in a step of the engine's queue, counted without a model:
1,000 and 10,000 questions, 8 responses each of 409 tokens on average and 1,024 at most, 512 rows, one rank;
rows_share_drained is the same with chunks one after another (run.deterministic).
--quick: 3 questions, at most 8 tokens, one repeat: too short for more than the order of things.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import common

common.start("reasoning_gym")
sys.path.insert(0, str(common.HOME / "tests"))

import numpy as np
import torch
import vllm_side
from support import dry
from transformers import ContinuousBatchingConfig, GenerationConfig
from vllm_side import Vllm

from hpc_saidpo import progress, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.gguf import convert_gguf
from hpc_saidpo.policy.locate import locate
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.pool.stage import load_pool
from hpc_saidpo.records import Question
from hpc_saidpo.rollouts.effort import Effort, decided
from hpc_saidpo.rollouts.engine import linears
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.machine import has_bfloat16
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.waves import in_waves
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.store.run import RunDir

ROWS, K = 48, 8
PAGE = 16  # tokens, of transformers' continuous batching: small, so that responses share most of their prompt
ROUNDS = has_bfloat16()


@dataclass
class Bench:
    """The model, the token ids of the prompts by kind, and the length of responses."""

    policy: Policy
    prompts: dict[str, list[list[int]]]
    new_tokens: int
    costs: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    vllm: dict[str, Vllm] = field(default_factory=dict)  # by the name of the engine

    def engines(self, kind: str) -> list[str]:
        """The engines that take part with prompts of a kind."""
        return [*(name for name in ENGINES if kind == "plain" or name != "generate_batch"), *self.vllm]

    def run(self, kind: str, engine: str, repeat: int) -> None:
        """Note the CPU-milliseconds per token of an engine."""
        prompts = self.prompts[kind][: SOME.get(engine)]
        if engine in self.vllm:
            seconds, n = self.vllm[engine].generate(prompts, K, self.new_tokens, 1.0, sorted(self.policy.eos_ids))
        else:
            sampling = Sampling(1.0, 1.0, self.new_tokens)
            seconds, tokens = common.cpu_s(lambda: self.tokens(prompts, engine, sampling, 10**6 * repeat))
            n = len(tokens)
        self.costs.setdefault((kind, engine), []).append(1000 * seconds / n)

    def tokens(self, prompts: Sequence[list[int]], engine: str, sampling: Sampling, seed: int, k: int = K) -> list[int]:
        """All tokens of the responses."""
        config = ENGINES[engine]
        if config is None:
            return self.continuous(prompts, sampling, seed, k)
        seeds = [[seed + 1000 * i + s for s in range(k)] for i in range(len(prompts))]
        responses = generate(self.policy, prompts, seeds, sampling, config)
        return [token for row in responses for response in row for token in response.tokens]

    def continuous(self, prompts: Sequence[list[int]], sampling: Sampling, seed: int, k: int) -> list[int]:
        torch.manual_seed(seed)
        drawn = GenerationConfig(
            do_sample=True, temperature=sampling.temperature, top_p=1.0, top_k=0,
            max_new_tokens=sampling.max_new_tokens, eos_token_id=list(self.policy.eos_ids),
            pad_token_id=self.policy.tokenizer.pad_token_id,
        )  # fmt: skip
        # By default it takes nine tenths of the machine's memory.
        pages = k * sum(-(-(len(prompt) + sampling.max_new_tokens) // PAGE) + 1 for prompt in prompts)
        cache = ContinuousBatchingConfig(page_size=PAGE, num_blocks=pages, max_batch_tokens=1024, use_cuda_graph=False)
        made = self.policy.model.generate_batch(
            [prompt for prompt in prompts for _ in range(k)], drawn, continuous_batching_config=cache
        )
        return [token for output in made.values() for token in output.generated_tokens]

    def cost(self, kind: str, engine: str) -> float:
        return statistics.median(self.costs[kind, engine])


ENGINES: dict[str, settings.Engine | None] = {
    "shared": settings.Engine(),
    "generate": settings.Engine(engine="hf", rows=ROWS),
    "one at a time": settings.Engine(engine="hf", rows=K),
    "generate_batch": None,
    **({"shared, bfloat16": settings.Engine(linears="bfloat16")} if ROUNDS else {}),
}
SOME = {"generate": 2 * ROWS // K, "one at a time": 1, "generate_batch": ROWS // K}  # questions; others take all
NAMES = {
    "generate": "x_hf_batched",
    "one at a time": "x_one_at_a_time",
    "generate_batch": "x_continuous_batching",
    "vLLM": "x_vllm",
}
VLLM = {"vLLM": "float32", **({"vLLM, bfloat16": "bfloat16"} if ROUNDS else {})}  # precision


def main() -> int:
    parser = common.parser(__doc__, "3 questions, 8 tokens, one repeat", repeats=3)
    parser.add_argument("--vllm", action="store_true", help="measure vLLM's CPU build, too (installs it)")
    parser.add_argument("--peak-of", nargs=4, metavar=("ENGINE", "MODEL", "PROMPTS", "TOKENS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.peak_of:
        print(peak_gib(*arguments.peak_of))
        return 0
    n, new_tokens = (3, 8) if arguments.quick else (24, 128)
    with tempfile.TemporaryDirectory() as folder:
        bench = load(Path(folder), n, new_tokens)
        figures = peaks(Path(folder), bench)
        with contextlib.ExitStack() as stack:
            if arguments.vllm:
                python = vllm_side.install()
                for name, precision in VLLM.items():
                    bench.vllm[name] = stack.enter_context(Vllm(python, Path(folder) / "model", precision))
            kinds = [(kind, engine) for kind in bench.prompts for engine in bench.engines(kind)]
            cases = {f"{kind}, {engine}": partial(bench.run, kind, engine) for kind, engine in kinds}
            common.in_turn(cases, common.repeats_of(arguments))
    figures |= speeds(bench)
    figures["greedy_match"] = greedy_match(bench)
    figures |= agreement(bench) if ROUNDS else {}
    figures |= rows_shares(bench, (100,) if arguments.quick else (1000, 10_000))
    figures |= early_decision(50 if arguments.quick else 1000)
    show(bench, figures)
    common.write_figures(figures, arguments)
    return 0


def load(folder: Path, n: int, new_tokens: int) -> Bench:
    """The demo's model, converted into `folder`, and prompts of its pool."""
    demo = compose.from_overrides(["experiment=demo"])
    bare = compose.from_overrides(["experiment=demo", "rollouts/prompt=chat"]).rollouts.prompt
    (folder / "model").mkdir()
    convert_gguf(locate(demo.policy.path), folder / "model")
    policy = Policy.load(str(folder / "model"), demo.policy, torch.device("cpu"))
    policy.model.eval()
    pool = load_pool(demo.pool, RunDir(folder, World(), {}, print))
    by_kind: dict[str, list[Question]] = {}
    for question in pool.questions:
        by_kind.setdefault(question.subject, []).append(question)
    various = [question for rank in zip(*by_kind.values(), strict=False) for question in rank][:n]
    alike = max(by_kind.values(), key=len)[:n]

    def tokens(
        questions: list[Question], prompt: settings.Prompt, examples: Mapping[str, Sequence[Question]]
    ) -> list[list[int]]:
        renderer = Renderer(questions, examples, policy, prompt)
        return sorted((renderer.tokens(i) for i in range(len(questions))), key=len, reverse=True)

    plain, few_shot = tokens(various, bare, {}), tokens(alike, demo.rollouts.prompt, pool.examples)
    return Bench(policy, {"plain": plain, "fewshot": few_shot}, new_tokens)


def speeds(bench: Bench) -> dict[str, float]:
    """CPU time of a token with the other engines, in multiples of ours."""
    figures = {}
    for kind, suffix in (("plain", ""), ("fewshot", "_fewshot")):
        ours = bench.cost(kind, "shared")
        beside = (engine for engine in bench.engines(kind) if engine in NAMES)
        figures |= {f"{NAMES[engine]}{suffix}": bench.cost(kind, engine) / ours for engine in beside}
        if ROUNDS:
            rounded = bench.cost(kind, "shared, bfloat16")
            figures[f"x_hf_batched_bfloat16{suffix}"] = bench.cost(kind, "generate") / rounded
            if bench.vllm:
                figures[f"x_vllm_bf16{suffix}"] = bench.cost(kind, "vLLM, bfloat16") / rounded
    return figures


def greedy_match(bench: Bench) -> float:
    """Share of greedy responses that are equal to transformers', token for token."""
    greedy = Sampling(0.0, 1.0, bench.new_tokens)
    both = settings.Engine(), settings.Engine(engine="hf", rows=ROWS)
    same = []
    for prompts in (prompts[: SOME["generate"]] for prompts in bench.prompts.values()):
        one = [[0]] * len(prompts)
        ours, theirs = (generate(bench.policy, prompts, one, greedy, config) for config in both)
        same += [a.tokens == b.tokens for (a,), (b,) in zip(ours, theirs, strict=True)]
    return statistics.fmean(same)


@torch.inference_mode()
def agreement(bench: Bench) -> dict[str, float]:
    """The effect of linear layers in bfloat16, on the prompts and responses of the exact model."""
    same, variation = [], []
    for prompts in (prompts[: SOME["generate"]] for prompts in bench.prompts.values()):
        sampling = Sampling(1.0, 1.0, bench.new_tokens)
        responses = generate(bench.policy, prompts, [[7]] * len(prompts), sampling, settings.Engine())
        for prompt, (response,) in zip(prompts, responses, strict=True):
            ids, after = torch.tensor([prompt + response.tokens]), slice(len(prompt) - 1, -1)
            exact = bench.policy.model(ids).logits[0, after].softmax(-1)
            with linears.fast(bench.policy, torch.bfloat16):
                rounded = bench.policy.model(ids).logits[0, after].softmax(-1)
            same += (exact.argmax(-1) == rounded.argmax(-1)).tolist()
            variation += (0.5 * (exact - rounded).abs().sum(-1)).tolist()
    return {
        "bfloat16_greedy_token_match": statistics.fmean(same),
        "bfloat16_total_variation_mean": statistics.fmean(variation),
        "bfloat16_total_variation_p99": float(np.quantile(variation, 0.99)),
    }


def rows_shares(bench: Bench, counts: Sequence[int]) -> dict[str, float]:
    """The mean share of rows with a response, for a rank with some numbers of questions."""
    figures = {}
    for n in counts:
        for name, drained in (("rows_share", False), ("rows_share_drained", True)):
            figures[f"{name}_{n}"], _ = dry.share_of_rows(bench.policy, n, 512, 409, 1024, drained=drained)
    return figures


def peaks(folder: Path, bench: Bench) -> dict[str, float]:
    """Peak memory of decoding at 48 rows, each engine in a process of its own."""
    (folder / "prompts.json").write_text(json.dumps(bench.prompts["fewshot"][: ROWS // K]))
    figures = {}
    for engine in ("shared", "hf"):
        words = engine, folder / "model", folder / "prompts.json", min(bench.new_tokens, 64)
        figures[f"{engine}_peak_gib"] = float(common.in_new_process(__file__, "--peak-of", *words))
    return {**figures, "mem_vs_hf": figures["shared_peak_gib"] / figures["hf_peak_gib"]}


def peak_gib(engine: str, model: str, prompts: str, new_tokens: str) -> float:
    """Peak memory of decoding above the memory of the loaded model, in this process."""
    policy = Policy.load(model, settings.Policy(path=model), torch.device("cpu"))
    token_ids = json.loads(Path(prompts).read_text())
    seeds = [[1000 * i + s for s in range(K)] for i in range(len(token_ids))]
    config = settings.Engine(engine="shared" if engine == "shared" else "hf", rows=ROWS)
    generate(policy, token_ids[:1], seeds[:1], Sampling(1.0, 1.0, 2), config)  # allocates what lasts
    common.reset_peak()
    before = common.memory_gib(common.NOW)
    generate(policy, token_ids, seeds, Sampling(1.0, 1.0, int(new_tokens)), config)
    return common.memory_gib() - before


def early_decision(n: int) -> dict[str, float]:
    """Tokens per question that gives a pair: 8 fixed responses against waves, with the micro model."""
    tiny = compose.from_overrides(["experiment=tiny", "rollouts.k=8"])
    policy = Policy.load(locate(tiny.policy.path), tiny.policy, torch.device("cpu"))
    questions = load_pool(tiny.pool, RunDir(Path("none"), World(), {}, print)).questions[:n]
    renderer = Renderer(questions, {}, policy, tiny.rollouts.prompt)
    token_Q = {q: renderer.tokens(q) for q in range(len(questions))}
    tables = {}
    with Grader() as grader:
        for name, waves in (("fixed", (K,)), ("adaptive", (2, 2, 4))):
            sampling, seed = tiny.rollouts.sampling(), (0, 0, "explore")
            tables[name] = in_waves(Effort(waves), token_Q, renderer, sampling, tiny.rollouts, seed, grader)
    usable = {name: decided(table) for name, table in tables.items()}
    tokens = {name: int(table.n_tokens_R.sum()) for name, table in tables.items()}
    in_band = {
        name: int(table.n_tokens_R[np.isin(table.question_R, list(usable["fixed"]))].sum())
        for name, table in tables.items()
    }
    return {
        **{f"tokens_per_pair_{name}": tokens[name] / len(usable[name]) for name in tables},
        "same_pair_questions": float(usable["fixed"] == usable["adaptive"]),
        "pair_yield": len(usable["fixed"]) / len(questions),
        "x_tokens_per_pair": tokens["fixed"] / tokens["adaptive"],
        "x_tokens_per_pair_in_band": in_band["fixed"] / in_band["adaptive"],
    }


def show(bench: Bench, figures: dict[str, float]) -> None:
    print(f"\n{'CPU-milliseconds a token':28}{'plain':>12}{'times ours':>12}{'few-shot':>12}{'times ours':>12}")
    for engine in bench.engines("plain"):
        costs = {kind: bench.cost(kind, engine) for kind in bench.prompts if engine in bench.engines(kind)}
        cells = [f"{'-':>12}{'-':>12}"] * len(bench.prompts)
        for i, kind in enumerate(bench.prompts):
            if kind in costs:
                cells[i] = f"{costs[kind]:12.2f}{costs[kind] / bench.cost(kind, 'shared'):12.2f}"
        print(f"{engine:28}" + "".join(cells))
    common.show_figures(figures)


if __name__ == "__main__":
    progress.log.disabled = True
    sys.exit(main())
