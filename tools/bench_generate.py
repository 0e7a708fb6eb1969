#!/usr/bin/env python3
"""Measure the rollout engine beside transformers' own ways of generating, on one thread of a CPU.

    python tools/bench_generate.py --quick
    python tools/bench_generate.py --json bench.json

SmolLM2-135M in float32 answers questions of the demo's pool (reasoning-gym): 8 responses each, at most 128 new tokens,
temperature 1, without examples (24 questions of all kinds) and behind the demo's four examples (24 questions of one
kind): chunks as a run makes them. Beside our engine, which takes each chunk at its defaults:

- `model.generate` at its best: 48 rows at once, prompts sorted by length (12 questions, two full batches);
- one question at a time with num_return_sequences=8 (one question);
- transformers' continuous batching, `model.generate_batch`, without examples (6 questions: 48 responses at once);
- our engine with linear layers in bfloat16, where the CPU has AMX.

What a token costs the three does not depend on more questions: their batches follow one another.

Each repeat goes through all of them in turn. CPU time is counted and divided by the tokens made; medians are shown.
greedy_match is the share of greedy responses that equal `model.generate`'s token for token; memory is the peak of a
fresh process above what the loaded model takes, at 48 rows. What bfloat16 changes is measured on the same texts:
the share of positions with the same likeliest token, and the total variation between the next-token distributions.
Early decision (rollouts.adaptive) is measured in tokens, with the micro model on its own arithmetic: tokens per
question that gives a pair, against 8 fixed responses, on its whole pool and on those questions that give pairs.
--quick: 3 questions, at most 8 tokens, one repeat: too short for more than the order of things.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(HOME))

import numpy as np
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from hpc_saidpo import progress, records, settings
from hpc_saidpo.cli import compose
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import gguf, locate, model
from hpc_saidpo.pool import stage
from hpc_saidpo.rollouts import prompts
from hpc_saidpo.rollouts.engine import linears
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.store.run import RunDir

ROWS, K = 48, 8
PAGE = 16  # tokens, of transformers' continuous batching: small, so that responses share most of their prompt
AMX = torch.cpu._is_amx_tile_supported()


@dataclass
class Bench:
    """The model, the token ids of the prompts by kind, and the length of responses."""

    policy: model.Policy
    prompts: dict[str, list[list[int]]]
    new_tokens: int
    costs: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def run(self, kind: str, engine: str, seed: int) -> None:
        """Note the CPU-milliseconds per token of an engine."""
        prompts = self.prompts[kind][: SOME.get(engine)]
        started = time.process_time()
        n = len(self.tokens(prompts, engine, Sampling(1.0, 1.0, self.new_tokens), seed))
        self.costs.setdefault((kind, engine), []).append(1000 * (time.process_time() - started) / n)

    def tokens(self, prompts, engine: str, how: Sampling, seed: int, k: int = K) -> list[int]:
        """All tokens of the responses."""
        if engine == "generate_batch":
            return self.continuous(prompts, how, seed, k)
        seeds = [[seed + 1000 * i + s for s in range(k)] for i in range(len(prompts))]
        made = generate(self.policy, prompts, seeds, how, ENGINES[engine])
        return [token for own in made for response in own for token in response.tokens]

    def continuous(self, prompts, how, seed, k) -> list[int]:
        torch.manual_seed(seed)
        drawn = GenerationConfig(
            do_sample=True, temperature=how.temperature, top_p=1.0, top_k=0, max_new_tokens=how.max_new_tokens,
            eos_token_id=list(self.policy.eos_ids), pad_token_id=self.policy.tokenizer.pad_token_id,
        )  # fmt: skip
        # Unless told, it takes nine tenths of the machine's memory.
        pages = k * sum(-(-(len(prompt) + how.max_new_tokens) // PAGE) + 1 for prompt in prompts)
        cache = ContinuousBatchingConfig(page_size=PAGE, num_blocks=pages, max_batch_tokens=1024, use_cuda_graph=False)
        made = self.policy.model.generate_batch(
            [prompt for prompt in prompts for _ in range(k)], drawn, continuous_batching_config=cache
        )
        return [token for output in made.values() for token in output.generated_tokens]

    def cost(self, kind: str, engine: str) -> float:
        return statistics.median(self.costs[kind, engine])


ENGINES = {
    "shared": settings.Engine(),
    "generate": settings.Engine(engine="hf", rows=ROWS),
    "one at a time": settings.Engine(engine="hf", rows=K),
    "generate_batch": None,
    **({"shared, bfloat16": settings.Engine(linears="bfloat16")} if AMX else {}),
}
SOME = {"generate": 2 * ROWS // K, "one at a time": 1, "generate_batch": ROWS // K}  # questions; others take all
NAMES = {"generate": "x_hf_batched", "one at a time": "x_one_at_a_time", "generate_batch": "x_continuous_batching"}


def engines_for(kind: str) -> list[str]:
    return [engine for engine in ENGINES if kind == "plain" or engine != "generate_batch"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 questions, 8 tokens, one repeat")
    parser.add_argument("--repeats", type=int, default=3, help="of which medians are shown (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file too, as one flat object")
    parser.add_argument("--peak-of", nargs=4, metavar=("ENGINE", "MODEL", "PROMPTS", "TOKENS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak_of:
        print(peak_gib(*asked.peak_of))
        return 0
    repeats, n, new_tokens = (1, 3, 8) if asked.quick else (asked.repeats, 24, 128)
    with tempfile.TemporaryDirectory() as folder:
        bench = load(Path(folder), n, new_tokens)
        figures = peaks(Path(folder), bench)
        for repeat in range(repeats):
            for kind in bench.prompts:
                for engine in engines_for(kind):
                    bench.run(kind, engine, seed=10**6 * repeat)
    figures |= speeds(bench)
    figures["greedy_match"] = greedy_match(bench)
    figures |= agreement(bench) if AMX else {}
    figures |= early_decision(50 if asked.quick else 1000)
    show(bench, figures)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def load(folder: Path, n: int, new_tokens: int) -> Bench:
    """The demo's model, converted into `folder`, and prompts of its pool."""
    demo = compose.from_overrides(["experiment=demo"])
    bare = compose.from_overrides(["experiment=demo", "rollouts/prompt=chat"]).rollouts.prompt
    (folder / "model").mkdir()
    gguf.convert_gguf(locate.locate(demo.policy.path), folder / "model")
    own = model.Policy.load(str(folder / "model"), demo.policy, torch.device("cpu"))
    own.model.eval()
    made = stage.load(demo.pool, RunDir(folder, World(), {}, print))
    by_kind: dict[str, list[records.Question]] = {}
    for question in made.questions:
        by_kind.setdefault(question.subject, []).append(question)
    various = [question for rank in zip(*by_kind.values(), strict=False) for question in rank][:n]
    alike = max(by_kind.values(), key=len)[:n]

    def tokens(questions, prompt, examples):
        prompts = prompts.Prompts(questions, examples, own, prompt)
        return sorted((prompts.tokens(i) for i in range(len(questions))), key=len, reverse=True)

    plain, few_shot = tokens(various, bare, {}), tokens(alike, demo.rollouts.prompt, made.examples)
    return Bench(own, {"plain": plain, "fewshot": few_shot}, new_tokens)


def speeds(bench: Bench) -> dict[str, float]:
    """How many times the CPU time of our engine the others take for a token."""
    found = {}
    for kind, suffix in (("plain", ""), ("fewshot", "_fewshot")):
        ours = bench.cost(kind, "shared")
        beside = (engine for engine in engines_for(kind) if engine in NAMES)
        found |= {f"{NAMES[engine]}{suffix}": bench.cost(kind, engine) / ours for engine in beside}
        if AMX:
            rounded = bench.cost(kind, "shared, bfloat16")
            found[f"x_hf_batched_bfloat16{suffix}"] = bench.cost(kind, "generate") / rounded
    return found


def greedy_match(bench: Bench) -> float:
    """Share of greedy responses that are transformers', token for token."""
    how = Sampling(0.0, 1.0, bench.new_tokens)
    same = []
    for prompts in (prompts[: SOME["generate"]] for prompts in bench.prompts.values()):
        one = [[0]] * len(prompts)
        ours, theirs = (generate(bench.policy, prompts, one, how, ENGINES[e]) for e in ("shared", "generate"))
        same += [a.tokens == b.tokens for (a,), (b,) in zip(ours, theirs, strict=True)]
    return statistics.fmean(same)


@torch.inference_mode()
def agreement(bench: Bench) -> dict[str, float]:
    """What linear layers in bfloat16 change, on the prompts and responses of the exact model."""
    same, variation = [], []
    for prompts in (prompts[: SOME["generate"]] for prompts in bench.prompts.values()):
        made = generate(
            bench.policy, prompts, [[7]] * len(prompts), Sampling(1.0, 1.0, bench.new_tokens), settings.Engine()
        )
        for prompt, (response,) in zip(prompts, made, strict=True):
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


def peaks(folder: Path, bench: Bench) -> dict[str, float]:
    """Peak memory of decoding at 48 rows, each engine in a process of its own."""
    (folder / "prompts.json").write_text(json.dumps(bench.prompts["fewshot"][: ROWS // K]))
    found = {}
    for engine in ("shared", "hf"):
        asked = engine, folder / "model", folder / "prompts.json", min(bench.new_tokens, 64)
        line = [sys.executable, __file__, "--peak-of", *asked]
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"measuring memory failed:\n{done.stderr}")
        found[f"{engine}_peak_gib"] = float(done.stdout.split()[-1])
    return {**found, "mem_vs_hf": found["shared_peak_gib"] / found["hf_peak_gib"]}


def peak_gib(engine: str, model: str, prompts: str, new_tokens: str) -> float:
    own = model.Policy.load(model, settings.Policy(path=model), torch.device("cpu"))
    token_ids = json.loads(Path(prompts).read_text())
    seeds = [[1000 * i + s for s in range(K)] for i in range(len(token_ids))]
    how, few = Sampling(1.0, 1.0, int(new_tokens)), Sampling(1.0, 1.0, 2)
    generate(own, token_ids[:1], seeds[:1], few, settings.Engine(engine=engine, rows=ROWS))  # what is made once
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status("VmRSS")
    generate(own, token_ids, seeds, how, settings.Engine(engine=engine, rows=ROWS))
    return _status("VmHWM") - before


def _status(key: str) -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) / 2**20


def early_decision(n: int) -> dict[str, float]:
    """Tokens per question that gives a pair: 8 fixed responses against waves, with the micro model."""
    settings = compose.from_overrides(["experiment=tiny", "rollouts.k=8"])
    own = model.Policy.load(locate.locate(settings.policy.path), settings.policy, torch.device("cpu"))
    questions = stage.load(settings.pool, RunDir(Path("none"), World(), {}, print)).questions[:n]
    prompts = prompts.Prompts(questions, {}, own, settings.rollouts.prompt)
    token_Q = {q: prompts.tokens(q) for q in range(len(questions))}
    tables = {}
    with Grader() as grader:
        for name, waves in (("fixed", (K,)), ("adaptive", (2, 2, 4))):
            how = settings.rollouts.sampling()
            made = waves.in_waves(waves, token_Q, prompts, how, settings.rollouts, (0, 0, "explore"), grader)
            tables[name] = made
    usable = {name: waves.decided(made) for name, made in tables.items()}
    tokens = {name: int(made.n_tokens_R.sum()) for name, made in tables.items()}
    in_band = {
        name: int(made.n_tokens_R[np.isin(made.question_R, list(usable["fixed"]))].sum())
        for name, made in tables.items()
    }
    return {
        **{f"tokens_per_pair_{name}": tokens[name] / len(usable[name]) for name in tables},
        "same_pair_questions": float(usable["fixed"] == usable["adaptive"]),
        "pair_yield": len(usable["fixed"]) / len(questions),
        "x_tokens_per_pair": tokens["fixed"] / tokens["adaptive"],
        "x_tokens_per_pair_in_band": in_band["fixed"] / in_band["adaptive"],
    }


def show(bench: Bench, figures: dict) -> None:
    print(f"\n{'CPU-milliseconds a token':28}{'plain':>12}{'times ours':>12}{'few-shot':>12}{'times ours':>12}")
    for engine in ENGINES:
        told = [bench.cost(kind, engine) if engine in engines_for(kind) else None for kind in bench.prompts]
        pairs = zip(told, bench.prompts, strict=True)
        cells = (
            f"{c:12.2f}{c / bench.cost(kind, 'shared'):12.2f}" if c else f"{'-':>12}{'-':>12}" for c, kind in pairs
        )
        print(f"{engine:28}" + "".join(cells))
    print()
    for name, value in figures.items():
        print(f"{name:34}{value:12.4g}")


if __name__ == "__main__":
    progress.log.disabled = True
    sys.exit(main())
