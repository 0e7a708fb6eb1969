"""Rollouts against transformers: the engine against `generate` and the plain forward pass, and a CUDA graph."""

from __future__ import annotations

import dataclasses

import torch
from transformers import StaticCache

from ... import settings
from ...policy import plain
from ...policy.model import Policy
from ...rollouts.engine.engine import generate
from ...rollouts.engine.sampling import Response
from ...rollouts.engine.ways import tried_engine
from ...settings.rollouts import Sampling
from . import models
from .bench import Bench
from .result import Figures, Skipped
from .training import CONFIGS

NEW_TOKENS = 12
STOP = "7"
ROWS = 7  # fewer than there are responses: prompts wait, and rows end at other steps than they began
# Nats a token from the plain forward pass, and nats by which a greedy token may be less probable than the best.
BOUNDS = {torch.float32: (1e-4, 1e-3), torch.bfloat16: (0.2, 1.0)}
UNEQUAL = {torch.float32: 0.2, torch.bfloat16: 1.0}  # share of greedy responses that rounding may change
STEPS = 4  # that a CUDA graph replays


def engine(bench: Bench, figures: Figures) -> None:
    """The engine `shared`, with and without a common start of the prompts, greedy and at temperature 1. With a
    common start, responses end at a stop string too.

    Each response's log-probability is compared with that of the plain forward pass in float32, and greedy responses
    with those of transformers' `generate`.
    """
    shape = bench.sizes.small
    start = models.random_ids(shape, 1, 6, 7)[0]
    rest = [ids[: 3 + 2 * i] for i, ids in enumerate(models.random_ids(shape, 5, 16, 8))]
    forms = {"plain": rest, "common": [start + ids for ids in rest]}
    for name, config in CONFIGS.items():
        policy = models.policy_of(models.small_model(config(shape), bench.device), bench.device)
        for precision, (nats, gap) in BOUNDS.items():
            here = dataclasses.replace(policy, precision=precision)
            kind = f"{name}_{str(precision).removeprefix('torch.')}"
            tried = tried_engine(here, "shared")
            reasons = "; ".join(f"{way}: {reason}" for way, reason in tried.failed.items())
            figures.require(tried.way == "shared", f"{kind}: decoded by {tried.way}, not by shared ({reasons})")
            for form, prompts in forms.items():
                place, show = f"{kind}_{form}", form == "common"
                stop = (STOP,) * show
                greedy, drawn = (_responses(here, prompts, temperature, "shared", stop) for temperature in (0.0, 1.0))
                theirs = _responses(here, prompts, 0.0, "hf", stop)
                errors = [_error(policy, *pair) for pair in zip([*prompts, *prompts], [*greedy, *drawn], strict=True)]
                figures.add(f"{place}_nats", max(error for error, _ in errors), most=nats, show=show)
                figures.add(f"{place}_gap", max(gap for _, gap in errors[: len(greedy)]), most=gap, show=False)
                unequal = sum(a.tokens != b.tokens for a, b in zip(greedy, theirs, strict=True)) / len(greedy)
                figures.add(f"{place}_unlike_generate", unequal, most=UNEQUAL[precision], show=show)


def _responses(
    policy: Policy, prompts: list[list[int]], temperature: float, name: str, stop: tuple[str, ...]
) -> list[Response]:
    """One response to each prompt that is checked, the first of two."""
    seeds = [[2 * i, 2 * i + 1] for i in range(len(prompts))]
    config = settings.Engine(engine=name, rows=ROWS)  # pyright: ignore[reportArgumentType] - a name of an engine
    made = generate(policy, prompts, seeds, Sampling(temperature, 1.0, NEW_TOKENS, stop=stop), config)
    return [first for first, _ in made]


def _error(policy: Policy, prompt: list[int], response: Response) -> tuple[float, float]:
    """The difference from the plain forward pass: of the log-probability, nats a token; of its greedy choices, nats."""
    with torch.no_grad():
        logp_T, highest_T = plain.logps(policy.model, prompt, response.tokens)
    return abs(float(logp_T.sum()) - response.logp) / len(response.tokens), float((highest_T - logp_T).max())


def graph(bench: Bench, figures: Figures) -> None:
    """A CUDA graph of a decoding step of transformers' forward pass with a static cache, against the same without."""
    if not bench.on_gpu:
        raise Skipped(f"there are no CUDA graphs on a {bench.device.type}")
    steps = _Steps(bench)
    eager = [steps.step(i).clone() for i in range(STEPS)]
    steps.restart()
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(bench.device)
    stream.wait_stream(torch.cuda.current_stream(bench.device))
    with torch.cuda.stream(stream):
        for i in range(2):
            steps.step(i)
    torch.cuda.current_stream(bench.device).wait_stream(stream)
    with torch.cuda.graph(graph):
        logits = steps.forward()
    steps.restart()
    worst = 0.0
    for i in range(STEPS):
        steps.set_inputs(i)
        graph.replay()
        worst = max(worst, float((logits - eager[i]).abs().max()))
    figures.add("difference", worst, most=1e-3)
    figures.add("step_ms", 1000 * bench.seconds(lambda: steps.step(STEPS), 10))
    figures.add("replayed_ms", 1000 * bench.seconds(graph.replay, 10))
    figures.note("engine", "the engine itself has no graphs yet")


class _Steps:
    """Decoding steps with fixed shapes and addresses: a prompt of a few tokens, then one token of each row."""

    def __init__(self, bench: Bench):
        shape, n_rows, self.n_prompt, length = bench.sizes.small, 8, 5, 64
        self.model = models.moved(models.small_model(models.llama_config(shape), bench.device), torch.bfloat16)
        self.cache = StaticCache(config=self.model.config, max_cache_len=length)
        self.inputs = torch.tensor(models.random_ids(shape, length, n_rows, 0), device=bench.device)
        self.places = torch.arange(length, device=bench.device)
        self.ids, self.position = self.inputs[0][:, None].clone(), self.places[:1, None].expand(n_rows, 1).clone()
        self.mask = torch.zeros(n_rows, 1, 1, length, dtype=torch.bool, device=bench.device)
        self.restart()

    def restart(self) -> None:
        """Read the prompt again."""
        self.cache.reset()
        for i in range(-self.n_prompt, 0):
            self.step(i)

    def step(self, i: int) -> torch.Tensor:
        """The logits [R, V] of step i; those of the prompt are negative."""
        self.set_inputs(i)
        return self.forward()

    def set_inputs(self, i: int) -> None:
        place = i + self.n_prompt
        self.ids.copy_(self.inputs[place][:, None])
        self.position.fill_(place)
        self.mask.copy_((self.places <= place).expand_as(self.mask))

    @torch.no_grad()
    def forward(self) -> torch.Tensor:
        return self.model(
            input_ids=self.ids, position_ids=self.position, attention_mask=self.mask, past_key_values=self.cache,
            use_cache=True,
        ).logits[:, -1]  # fmt: skip
