"""The ways to decode responses, and the try-out that finds the first one that a model computes correctly."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from ...policy import plain, trial
from ...policy.model import Policy
from ...policy.trial import Trial
from ...settings.rollouts import Sampling
from . import hf, linears, shared
from .attention import UnsupportedAttention
from .memory import cache_bytes
from .sampling import Response
from .work import Backlog, Load, Options, Part, Work, listed

NEW_TOKENS = 5  # of a response in the try-out
SHARED, HF, HF_ALIKE = "shared", "hf", "hf without padding"
Decode = Callable[[Policy, Backlog, Load, Sampling, Options], Iterator[Part]]
DECODE: dict[str, Decode] = {
    SHARED: shared.decode,
    HF: hf.decode,
    HF_ALIKE: functools.partial(hf.decode, padded=False),
}


def prompt_tokens(way: str, load: Load) -> float:
    """Tokens of prompts that are stored for each response, at most."""
    return min(1, shared.SLOTS / load.k) * load.rest_tokens if way == SHARED else load.prompt_tokens


def fast_linears(policy: Policy, way: str, precision: torch.dtype, compiled: bool) -> contextlib.AbstractContextManager:
    """A context with fast linear layers, if the way uses them: engine hf computes as transformers does."""
    return linears.fast(policy, precision, compiled) if way == SHARED else contextlib.nullcontext()


def tried_engine(policy: Policy, engine: Literal["shared", "hf"]) -> Trial:
    """The first way to decode that agrees with the policy's plain forward pass; tried out once per process.

    Args:
        engine: the first way to try.

    Raises:
        RunError: no way agrees.
    """
    return trial.tried(engine_key(policy, engine), lambda: _try_out(policy, engine))


def engine_key(policy: Policy, engine: Literal["shared", "hf"]) -> str:
    """The name of the policy's try-out."""
    return trial.key_of(policy.model, policy.precision, f"engine {engine}")


def _try_out(policy: Policy, engine: Literal["shared", "hf"]) -> Trial:
    first, second, *more = plain.ordinary_tokens(policy.model, 9)
    prompts = [[*more, first], [*more, second, *more[:6]]]
    endless = replace(policy, ends=frozenset())
    rounding = functools.cache(lambda: _rounding(endless, prompts[1], [*more[:NEW_TOKENS]]))
    ways = [SHARED, HF, HF_ALIKE][engine == "hf" :]
    result = trial.try_out(
        policy.model,
        "rollouts",
        {way: functools.partial(_measure, endless, way, prompts, rounding) for way in ways},
        "use another policy (policy.path), or another attention (policy.attention=eager)",
    )
    if result.way == SHARED:
        return result
    token_bytes, row_bytes = cache_bytes(policy)
    return replace(result, token_bytes=token_bytes, row_bytes=row_bytes)


def _rounding(policy: Policy, prompt: Sequence[int], response: Sequence[int]) -> float:
    """The largest difference of the plain forward pass in the policy's precision from a more exact one, in nats."""
    with torch.no_grad():
        exact_T, _ = plain.logps(plain.more_exact(policy.model, policy.precision), prompt, response)
        with policy.autocast():
            rounded_T, _ = plain.logps(policy.model, prompt, response)
    return float((exact_T - rounded_T).abs().max())


def _measure(
    policy: Policy, way: str, prompts: Sequence[Sequence[int]], rounding: Callable[[], float]
) -> tuple[float, float, dict[str, Any]]:
    """Decode greedily and at temperature 1, two responses to each prompt. See `trial.Measure`."""
    if way == SHARED and not shared.supports(policy):
        raise UnsupportedAttention("its attention cannot be replaced, or sees other tokens than the last ones")
    bound, worst, token_bytes = 0.0, 0.0, None
    load = Load(2, *[max(map(len, prompts))] * 2)
    for temperature in (0.0, 1.0):
        works = [Work(prompt, [4 * i, 4 * i + 1]) for i, prompt in enumerate(prompts)]
        options, sampling = Options(n_rows=2 * len(prompts)), Sampling(temperature, 1.0, NEW_TOKENS)
        arguments = policy, Backlog(listed(works), options.n_rows), load, sampling, options
        with fast_linears(policy, way, torch.float32, compiled=False):
            if way == SHARED:
                decoding = shared.Decoding(*arguments)
                collections.deque(decoding.run(), maxlen=0)
                token_bytes = decoding.cache.token_bytes
            else:
                collections.deque(DECODE[way](*arguments), maxlen=0)
        for work in works:
            distinct = {tuple(r.tokens): r for r in work.responses}  # greedy responses are alike
            errors = [_error(policy, work.prompt, response, temperature == 0) for response in distinct.values()]
            errors += [abs(a.logp - b.logp) / NEW_TOKENS for a, b in [work.responses] if a.tokens == b.tokens]
            worst = max([worst, *errors], key=lambda x: float("inf") if x != x else x)
        bound = trial.bound_of(policy.precision, worst, rounding)
        if not worst <= bound:
            break  # sampling from what is not a number would stop a GPU
    return worst, bound, {} if token_bytes is None else {"token_bytes": token_bytes}


def _error(policy: Policy, prompt: Sequence[int], response: Response, greedy: bool) -> float:
    """The difference from the plain forward pass, nats a token: of the recorded log-probability, and of the choice."""
    with torch.no_grad(), policy.autocast():
        logp_T, highest_T = plain.logps(policy.model, prompt, response.tokens)
    error = abs(float(logp_T.sum()) - response.logp) / len(response.tokens)
    return max(error, float((highest_T - logp_T).max()) / 2) if greedy else error
