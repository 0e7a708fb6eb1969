"""Try out several ways of a computation: the first one that agrees with the model's plain forward pass is used."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedModel

from ..errors import RunError, is_out_of_memory
from ..parallel.stop import Stopped
from ..progress import log
from .plain import short_windows

BOUND = 1e-4  # nats a token: the least bound in float32
LOWER_BOUND = 0.01  # the least one in a lower precision, and the largest in float32
ROUNDINGS = 4  # how many times the rounding of the plain forward pass is allowed


class Differs(Exception):
    """A way computes something else than the plain forward pass; the message says by how much."""


@dataclass(frozen=True)
class Trial:
    """The result of a try-out.

    Attributes:
        way: the first way that agrees.
        error, bound: its largest difference from the plain forward pass, and the largest allowed one, nats a token.
        failed: the ways before it, each with the reason.
        token_bytes: of keys and values that a response needs for each of its tokens and of its prompt.
        row_bytes: of state that it needs besides, whatever its length.
        unused: some weights had no gradient: parts that read images, experts that no token reached.
    """

    way: str
    error: float
    bound: float
    failed: dict[str, str] = field(default_factory=dict)
    token_bytes: float = 0.0
    row_bytes: float = 0.0
    unused: bool = False


Measure = Callable[[], tuple[float, float, Mapping[str, Any]]]  # largest error, bound, further figures of `Trial`

_done: dict[str, Trial] = {}


def key_of(model: PreTrainedModel, precision: torch.dtype, purpose: str) -> str:
    """A name for a try-out: the same for models of one architecture, precision and kind of device."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NAMES}
    whole = json.dumps(config, sort_keys=True, default=str)
    facts = (type(model).__name__, str(precision), next(model.parameters()).device.type, attention_of(model), whole)
    return f"{purpose}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


_NAMES = ("_name_or_path", "transformers_version")  # in configurations, of no effect


def attention_of(model: PreTrainedModel) -> str:
    """The model's attention implementation, by transformers' name."""
    return model.config.get_text_config()._attn_implementation or "eager"


def tried(key: str, compute: Callable[[], Trial]) -> Trial:
    """The try-out of this name: it is made once in a process, unless `remember` has brought its result."""
    if key not in _done:
        _done[key] = compute()
    return _done[key]


def remember(key: str, trial: Mapping[str, Any]) -> None:
    """Use the result of an earlier try-out, or of another rank: a `Trial` as plain values.

    Raises:
        RunError: the values are not those of a try-out.
    """
    try:
        _done[key] = TypeAdapter(Trial).validate_python(trial)
    except ValidationError as error:
        raise RunError(
            f"the run's models.json holds no result of a try-out under {key!r}: remove the file; the policy is then "
            "tried out again"
        ) from error


def plain_values(trial: Trial) -> dict[str, Any]:
    """A `Trial` as plain values."""
    return dataclasses.asdict(trial)


def try_out(model: PreTrainedModel, purpose: str, ways: Mapping[str, Measure], refusal: str) -> Trial:
    """Try ways in order until one agrees with the plain forward pass, and log the result in one line.

    The model and torch's random state are afterwards as they were.

    Args:
        purpose: what is computed, for the log.
        ways: each measures its largest difference, or raises any exception.
        refusal: end of the message when no way agrees.

    Raises:
        RunError: no way agrees.
        torch.OutOfMemoryError: memory does not suffice for a few tokens.
    """
    failed: dict[str, str] = {}
    for way, measure in ways.items():
        try:
            with _left_as_it_was(model):
                error, bound, figures = measure()
            if not error <= bound:  # also when it is not a number
                raise Differs(f"{error:.1e} nats a token from the plain forward pass, allowed are {bound:.1e}")
        except (RunError, Stopped, MemoryError):
            raise
        except Exception as caught:
            if is_out_of_memory(caught):
                raise
            failed[way] = _describe(caught)
            continue
        log.info("  %s", _summary(model, purpose, way, error, failed))
        return Trial(way, error, bound, failed, **figures)
    reasons = "\n".join(f"  {way}: {reason}" for way, reason in failed.items())
    raise RunError(
        f"{purpose} was tried out with {type(model).__name__}, and no way computes what the model's plain forward pass "
        f"does:\n{reasons}\n{refusal}"
    )


def bound_of(
    precision: torch.dtype,
    error: float,
    rounding: Callable[[], float],
    least: float = BOUND,
    lower: float = LOWER_BOUND,
) -> float:
    """The largest allowed difference: a few times the rounding of the plain forward pass, within limits.

    In float32 the rounding is measured only if the least bound does not suffice: on some processors, and where logits
    are large, the plain forward pass itself is further from the exact values.

    Args:
        error: the difference that is to be judged.
        rounding: measures the largest difference of the plain forward pass in this precision from a more exact one.
        least: the least bound in float32.
        lower: the least bound in a lower precision, and the largest in float32.
    """
    if precision != torch.float32:
        return max(lower, ROUNDINGS * rounding())
    return least if error <= least else min(lower, max(least, ROUNDINGS * rounding()))


def _summary(model: PreTrainedModel, purpose: str, way: str, error: float, failed: Mapping[str, str]) -> str:
    text = f"{purpose}, tried out with {type(model).__name__}: {way} ({error:.1e} nats a token from its plain forward)"
    return text + "".join(f"; not {other}: {reason}" for other, reason in failed.items())


def _describe(caught: Exception) -> str:
    """An exception in one short line."""
    if isinstance(caught, Differs):
        return str(caught)
    lines = str(caught).strip().splitlines() or [""]
    return f"{type(caught).__name__}: {lines[0][:160]}"


@contextlib.contextmanager
def _left_as_it_was(model: PreTrainedModel) -> Iterator[None]:
    """A context with short windows and a random state of its own; the model is in evaluation mode."""
    device = next(model.parameters()).device
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), short_windows(model):
        model.eval()
        try:
            yield
        finally:
            for module, training in modes.items():
                module.training = training
