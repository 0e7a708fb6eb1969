"""The try-out that finds the most efficient arrangement of pairs in rows that a model computes correctly."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from ..errors import RunError
from ..policy import plain, trial
from ..policy.attention import attends_to_all, selected_tokens
from ..policy.model import Policy
from ..policy.trial import Differs, Trial, attention_of
from ..settings.dpo import HEAD_TOKENS
from .logps import ResponseLogps
from .rows import Arrangement, Tokens, lay_out

ORDER: tuple[Arrangement, ...] = ("shared", "packed", "padded", "whole", "single")
TRIED_HEAD_TOKENS = 6  # so that the head is computed in several chunks
TRIED_NUMBERS = 2**20  # weights whose gradients are compared: the smallest tensors
GRADIENT_BOUNDS = 1e-4, 0.05  # relative, of all compared gradients together (`trial.bound_of`)


def tried_arrangement(policy: Policy) -> Arrangement:
    """The first arrangement that agrees with the policy's plain forward pass. Raises: see `try_arrangement`."""
    return cast(Arrangement, try_arrangement(policy.model, policy.precision).way)


def try_arrangement(model: PreTrainedModel, precision: torch.dtype = torch.float32) -> Trial:
    """Try the arrangements of two prompts with two responses each; once per process.

    Raises:
        RunError: no arrangement agrees with the model's plain forward pass, in values and gradients; or the trained
            model could not be loaded again.
    """
    return trial.tried(arrangement_key(model, precision), lambda: _try_out(model, precision))


def arrangement_key(model: PreTrainedModel, precision: torch.dtype) -> str:
    """The name of the model's try-out."""
    return trial.key_of(model, precision, "pairs in rows")


def response_logps(
    model: PreTrainedModel,
    prompts: Sequence[Tokens],
    responses: Sequence[Sequence[Tokens]],
    pad_id: int,
    head_tokens: int = HEAD_TOKENS,
) -> torch.Tensor:
    """Return log pi(response | prompt) of each response, in nats: float32, [B, R], differentiable.

    Args: see `rows.lay_out` and `ResponseLogps`.
    """
    device = next(model.parameters()).device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    arrangement = cast(Arrangement, try_arrangement(model, precision).way)
    return ResponseLogps(model, head_tokens)(lay_out(prompts, responses, pad_id, arrangement)).sum_BR


def _try_out(model: PreTrainedModel, precision: torch.dtype) -> Trial:
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise RunError(
            f"a {model.config.model_type} model cannot be trained: transformers would save it as a part of another "
            "model, and not load it again with AutoModelForCausalLM: use another policy (policy.path)"
        )
    ids = plain.ordinary_tokens(model, 16)
    prompts = [ids[:7], ids[4:7]]
    responses = [(ids[7:12], ids[6:9]), (ids[12:14], ids[12:16])]
    pairs = _Pairs(model, precision, prompts, responses)
    return trial.try_out(
        model,
        "training",
        {way: functools.partial(pairs.measure, way) for way in ORDER},
        "use another policy (policy.path), or another attention (policy.attention=eager)",
    )


class _Pairs:
    """Two prompts with two responses each, and their log-probabilities by the plain forward pass."""

    def __init__(
        self,
        model: PreTrainedModel,
        precision: torch.dtype,
        prompts: Sequence[Tokens],
        responses: Sequence[Sequence[Tokens]],
    ):
        self.model, self.precision, self.prompts, self.responses = model, precision, prompts, responses
        self.weights = _smallest(model)

    @functools.cached_property
    def expected(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The plain forward pass in the policy's precision: values [N], gradients [M]."""
        return self._plain(self.precision)

    @functools.cached_property
    def unused(self) -> bool:
        """Whether the values do not depend on some trained weight."""
        with torch.inference_mode(False), torch.enable_grad():
            value_N = self._values()
        nodes, reached, seen = [value_N.grad_fn], set(), set()
        while nodes:
            node = nodes.pop()
            if node is not None and node not in seen:
                seen.add(node)
                reached.add(id(getattr(node, "variable", None)))
                nodes += [inner for inner, _ in node.next_functions]
        return any(p.requires_grad and id(p) not in reached for p in self.model.parameters())

    @functools.cached_property
    def rounding(self) -> tuple[float, float]:
        """Its largest difference from a more exact one: of a value in nats, of the gradients relatively."""
        exact = _Pairs(plain.more_exact(self.model, self.precision), torch.float32, self.prompts, self.responses)
        return _differences(self.expected, exact.expected)

    def measure(self, way: Arrangement) -> tuple[float, float, dict[str, Any]]:
        """The differences of an arrangement from the plain forward pass. See `trial.Measure`."""
        _check_reach(self.model, way)
        batch = lay_out(self.prompts, self.responses, self.prompts[0][0], way)
        module = ResponseLogps(self.model, TRIED_HEAD_TOKENS)
        error, gradient_error = _differences(self._with_gradients(lambda: module(batch).token_N), self.expected)
        bound = trial.bound_of(self.precision, error, lambda: self.rounding[0])
        allowed = trial.bound_of(self.precision, gradient_error, lambda: self.rounding[1], *GRADIENT_BOUNDS)
        if error <= bound and not gradient_error <= allowed:
            raise Differs(f"gradients {gradient_error:.1e} off (relative), allowed are {allowed:.1e}")
        return error, bound, {"unused": self.unused}

    def _plain(self, precision: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return self._with_gradients(self._values, precision)

    def _values(self) -> torch.Tensor:
        pairs = zip(self.prompts, self.responses, strict=True)
        return torch.cat([plain.logps(self.model, p, r)[0] for p, own in pairs for r in own])

    def _with_gradients(
        self, compute: Callable[[], torch.Tensor], precision: torch.dtype | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values [N] and the gradients of their weighted sum, as one vector; .grad is not touched."""
        precision = precision or self.precision
        device = next(self.model.parameters()).device.type
        with torch.inference_mode(False), torch.enable_grad():
            with torch.autocast(device, dtype=precision, enabled=precision != torch.float32):
                value_N = compute()
            weight_N = torch.linspace(-1.0, 2.0, len(value_N), device=value_N.device)
            found = torch.autograd.grad((value_N * weight_N).sum(), self.weights, allow_unused=True)
        gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(self.weights, found, strict=True)]
        return value_N.detach(), torch.cat([g.float().flatten() for g in gradients])


def _smallest(model: PreTrainedModel) -> list[nn.Parameter]:
    """The smallest trained weights of a model, TRIED_NUMBERS numbers in all, at least one tensor."""
    chosen, total = [], 0
    for weight in sorted((p for p in model.parameters() if p.requires_grad), key=torch.Tensor.numel):
        total += weight.numel()
        if chosen and total > TRIED_NUMBERS:
            break
        chosen.append(weight)
    return chosen


def _differences(
    one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float]:
    """The largest difference of values, and the relative difference of gradients."""
    relative = (one[1] - other[1]).norm() / other[1].norm().clamp(min=1e-12)
    return float((one[0] - other[0]).abs().max()), float(relative)


def _check_reach(model: PreTrainedModel, way: Arrangement) -> None:
    """Check cheaply what a few tokens may not show.

    Raises:
        Differs: the arrangement would be wrong, or wasteful, in long rows.
    """
    attention = attention_of(model)
    if way == "shared" and attention not in ("eager", "sdpa"):
        raise Differs(f"{attention} takes no mask between responses")
    if way == "shared" and not attends_to_all(model.config):
        raise Differs("some layers do not see the whole row")
    if way in ("shared", "packed") and selected_tokens(model.config) < math.inf:
        raise Differs("attention would select among the tokens of a long row")
    if way == "packed" and attention == "eager":
        raise Differs("eager attention would store the scores between documents")
