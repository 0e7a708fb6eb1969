"""The speed of rollouts and of a DPO step, in tokens per second and as shares of what the device can do.

Model-FLOPs utilisation is the number of floating-point operations of the model's own arithmetic
(`Shape.forward_flops`), over the time and the measured peak. A backward pass counts twice a forward pass; activations
that are computed again do not count.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ... import settings
from ...dpo.train import Lesson, train
from ...parallel.world import World
from ...rollouts.engine.engine import generate
from ...rollouts.engine.ways import tried_engine
from ...settings.rollouts import Sampling
from . import models
from .bench import Bench
from .result import Figures
from .training import random_pairs

PROFILED_TOKENS = 8  # new tokens of the rollouts whose kernels and waits are counted
WARM_UP = 3  # products before the timed ones
STEPS = 4  # of a DPO round; the first one is not counted


def peak(bench: Bench, figures: Figures) -> None:
    """Measure the peak of a dense product in bfloat16, of random numbers, and the bandwidth of a copy."""
    n = bench.sizes.square
    one, other = (torch.randn(n, n, device=bench.device).to(torch.bfloat16) for _ in range(2))
    bench.seconds(lambda: one @ other, WARM_UP)
    bench.peak_flops = 2 * n**3 / bench.seconds(lambda: one @ other, 20)
    source = torch.ones(bench.sizes.copied, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    target.copy_(source)
    bench.bytes_per_s = 2 * source.numel() / bench.seconds(lambda: target.copy_(source), 10)
    figures.add("bf16_tflops", bench.peak_flops / 1e12)
    figures.add("copy_gb_per_s", bench.bytes_per_s / 1e9)


@dataclass(frozen=True)
class Load:
    """A load of rollouts.

    Attributes:
        common: tokens that begin every prompt.
    """

    prompts: int
    k: int
    prompt_tokens: int
    common: int
    new_tokens: int

    @property
    def rows(self) -> int:
        return self.prompts * self.k

    def flops(self, shape: models.Shape) -> float:
        """Operations of the prompts and of the steps; the last tokens are not read."""
        steps, rest = self.new_tokens - 1, self.prompt_tokens - self.common
        read = self.common + self.prompts * rest
        seen = self.common**2 / 2 + self.prompts * rest * (self.common + rest / 2)
        decoded = self.rows * steps
        return shape.forward_flops(
            read + decoded, self.prompts + decoded, seen + decoded * (self.prompt_tokens + (steps + 1) / 2)
        )

    def step_bytes(self, shape: models.Shape, n_bytes: int) -> float:
        """Bytes that a step must read: the weights, and the keys and values, those of a prompt once."""
        kv_width = 2 * shape.layers * shape.kv_heads * shape.hidden // shape.heads
        kept = self.common + self.prompts * (self.prompt_tokens - self.common) + self.rows * self.new_tokens / 2
        return n_bytes * (shape.layer_parameters + shape.head_parameters + kv_width * kept)


def rollouts(bench: Bench, figures: Figures) -> None:
    """Rollouts of prompts without a common start."""
    _rollouts(bench, figures, _load(bench, 0))


def rollouts_common(bench: Bench, figures: Figures) -> None:
    """Rollouts of prompts with a common start, as few-shot prompts have."""
    _rollouts(bench, figures, _load(bench, bench.sizes.common))


def rollouts_generate(bench: Bench, figures: Figures) -> None:
    """The same rollouts by transformers' `generate`."""
    load = _load(bench, 0)
    _decode(bench, load, 2, "hf")
    seconds = bench.seconds(lambda: _decode(bench, load, load.new_tokens, "hf"))
    figures.add("tokens_per_s", load.rows * load.new_tokens / seconds)
    figures.add("seconds", seconds, show=False)


def _load(bench: Bench, common: int) -> Load:
    sizes = bench.sizes
    return Load(sizes.prompts, sizes.k, sizes.prompt_tokens, common, sizes.new_tokens)


def _decode(bench: Bench, load: Load, new_tokens: int, engine: str = "shared") -> None:
    """Decode the load at temperature 1; no response ends before `new_tokens`."""
    shape = bench.sizes.large
    start = models.random_ids(shape, 1, load.common, 1)[0]
    rest = models.random_ids(shape, load.prompts, load.prompt_tokens - load.common, 2)
    seeds = [[load.k * i + j for j in range(load.k)] for i in range(load.prompts)]
    rows = load.rows if engine == "hf" else None  # the engine's own choice
    config = settings.Engine(engine=engine, rows=rows)  # pyright: ignore[reportArgumentType] - a name of an engine
    made = generate(bench.large, [start + ids for ids in rest], seeds, Sampling(1.0, 1.0, new_tokens), config)
    assert all(len(response.tokens) == new_tokens for responses in made for response in responses)


def _rollouts(bench: Bench, figures: Figures, load: Load) -> None:
    """Measure the load: as a whole, one step of it, its kernels, and the host's waits."""
    shape, policy = bench.sizes.large, bench.large
    figures.note("way", tried_engine(policy, "shared").way, show=False)
    figures.require(figures.values["way"] == "shared", f"decoded by {figures.values['way']}, not by shared")
    _decode(bench, load, 2)
    first_s = bench.seconds(lambda: _decode(bench, load, 1))
    seconds: list[float] = []
    memory = bench.peak_gib(lambda: seconds.append(bench.seconds(lambda: _decode(bench, load, load.new_tokens))))
    step_s = (seconds[0] - first_s) / (load.new_tokens - 1)
    figures.add("tokens_per_s", load.rows * load.new_tokens / seconds[0])
    figures.add("step_ms", 1000 * step_s)
    figures.add("first_token_ms", 1000 * first_s, show=False)
    if bench.peak_flops and bench.bytes_per_s:
        figures.add("flops_utilisation", load.flops(shape) / seconds[0] / bench.peak_flops)
        n_bytes = policy.precision.itemsize
        figures.add("bandwidth_utilisation", load.step_bytes(shape, n_bytes) / step_s / bench.bytes_per_s)
    figures.add("memory_gib", memory, " GiB")
    _where_time_goes(bench, figures, lambda n: _decode(bench, load, n), (1, 1 + PROFILED_TOKENS), step_s)


def _where_time_goes(
    bench: Bench, figures: Figures, work: Callable[[int], object], counts: tuple[int, int], step_s: float
) -> None:
    """Add the kernels and the host's waits of a step, each as a difference of two counts of steps."""
    n_steps = counts[1] - counts[0]
    fewer, more = (bench.host_waits(lambda n=n: work(n)) for n in counts)
    if fewer is not None and more is not None:
        waits = Counter({place: (more[place] - fewer[place]) / n_steps for place in more})
        figures.add("host_waits_per_step", float(waits.total()))
        shown = ", ".join(f"{place} {n:.2f}" for place, n in waits.most_common(10) if n)
        figures.note("host_waits", shown, show=False)
    fewer, more = (bench.kernels(lambda n=n: work(n)) for n in counts)
    if fewer and more:
        kernel_s = (more.seconds - fewer.seconds) / n_steps
        figures.add("kernels_per_step", (more.n - fewer.n) / n_steps)
        figures.add("gpu_idle", max(0.0, 1 - kernel_s / step_s))
        figures.note("longest_kernels", more.longest, show=False)


def dpo_step(bench: Bench, figures: Figures) -> None:
    """DPO steps with the default settings of `dpo`, and the reference pass before them."""
    _dpo(bench, figures, settings.Dpo(batch_pairs=bench.sizes.pairs))


def dpo_step_checkpointing(bench: Bench, figures: Figures) -> None:
    """The same, with activations computed again in the backward pass."""
    _dpo(bench, figures, settings.Dpo(batch_pairs=bench.sizes.pairs, checkpointing=True))


def _dpo(bench: Bench, figures: Figures, config: settings.Dpo) -> None:
    sizes, shape = bench.sizes, bench.sizes.large
    n_prompt = sizes.pair_tokens // 4
    n_response = sizes.pair_tokens - n_prompt
    reference_s: list[float] = []

    def reference(compute: Callable[[], np.ndarray]) -> np.ndarray:
        bench.synchronise()
        started = time.perf_counter()
        values = compute()
        reference_s.append(time.perf_counter() - started)
        return values

    def round_of(n_steps: int) -> list[dict]:
        n = n_steps * sizes.pairs
        ids = [
            models.random_ids(shape, n, length, 3 + i) for i, length in enumerate((n_prompt, n_response, n_response))
        ]
        pairs, examples = random_pairs(bench.large, ids)
        return train(bench.large, Lesson(pairs, examples, seed=0, iteration=0), config, World(), reference=reference)

    steps: list[dict] = []
    memory = bench.peak_gib(lambda: steps.extend(round_of(STEPS)))
    tokens_per_s = statistics.median(step["tokens_per_s"] for step in steps[1:])
    # The prompt is read once for both responses (arrangement shared).
    tokens = sizes.pairs * (n_prompt + 2 * n_response)
    seen = sizes.pairs * (n_prompt**2 / 2 + 2 * n_response * (n_prompt + n_response / 2))
    forward, step_s = shape.forward_flops(tokens, sizes.pairs * 2 * n_response, seen), tokens / tokens_per_s
    figures.add("tokens_per_s", tokens_per_s)
    figures.add("step_ms", 1000 * step_s)
    figures.add("reference_ms", 1000 * reference_s[0] / STEPS)
    if bench.peak_flops:
        figures.add("flops_utilisation", 3 * forward / step_s / bench.peak_flops)
        figures.add("reference_utilisation", forward * STEPS / reference_s[0] / bench.peak_flops, show=False)
    figures.add("memory_gib", memory, " GiB")
    _where_time_goes(bench, figures, round_of, (1, 2), step_s + reference_s[0] / STEPS)
