"""Linear layers during decoding. Few rows are decoded at once, so reading the weights dominates the CPU time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import linear

from ...errors import RunError
from ...policy.model import Policy

# Numbers of rows for which a CPU computes weights · rows faster than rows · weights (measured).
FEWEST, MOST = 4, 128


@contextmanager
def fast(policy: Policy, precision: torch.dtype, compiled: bool = False) -> Iterator[None]:
    """A context in which the model's linear layers are fast for few rows.

    The layers of a policy that computes in bfloat16 get weights of that precision, cast once: under `inference_mode`
    autocast keeps no copies, and would cast every float32 weight in every step. The precision of all other operations
    is autocast's.

    Args:
        precision: for a policy that computes in float32. bfloat16 rounds the weights and inputs of these layers only;
            their inputs and outputs stay float32. float32 changes only the order of a CPU's summation.
        compiled: the model will be compiled, which is faster than our order.

    Raises:
        RunError: this CPU has no bfloat16 matrix unit (AMX), so bfloat16 would be slower than float32.
    """
    layers = [m for m in policy.model.modules() if type(m) is nn.Linear]
    if policy.precision == torch.bfloat16:
        with _cast(layers):
            yield
        return
    if precision == torch.bfloat16:
        _check_bfloat16(policy)
    elif policy.device.type != "cpu" or compiled:
        layers = []
    rounded: dict[int, torch.Tensor] = {}  # one copy of a tied weight
    for layer in layers:
        forward = functools.partial(_by_weights, layer.weight, layer.bias)
        if precision == torch.bfloat16:
            weight = rounded.setdefault(id(layer.weight), layer.weight.detach().to(torch.bfloat16))
            forward = functools.partial(_rounded, weight, layer.bias)
        layer.forward = forward  # pyright: ignore[reportAttributeAccessIssue] - torch names the input differently
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # restores the forward of the class


@contextmanager
def _cast(layers: Sequence[nn.Linear]) -> Iterator[None]:
    """A context in which the layers have weights in bfloat16; afterwards they have the original ones."""
    originals = [dict(layer._parameters) for layer in layers]
    cast: dict[int, nn.Parameter] = {}
    for layer in layers:
        for name, original in layer._parameters.items():
            if original is not None and id(original) not in cast:
                cast[id(original)] = nn.Parameter(original.detach().to(torch.bfloat16), requires_grad=False)
            layer._parameters[name] = cast.get(id(original))
    try:
        yield
    finally:
        for layer, parameters in zip(layers, originals, strict=True):
            layer._parameters.update(parameters)


def _check_bfloat16(policy: Policy) -> None:
    if policy.device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        raise RunError(
            "rollouts.generate.linears=bfloat16 needs a CPU with AMX, and this CPU has none: set it to float32"
        )


def _by_weights(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    n = x.shape[:-1].numel()
    if not FEWEST <= n <= MOST:
        return linear(x, weight, bias)
    y = (weight @ x.reshape(n, -1).T.contiguous()).T.contiguous()  # in the memory layout that nn.Linear returns
    y = y.view(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _rounded(weight: torch.Tensor, bias: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    y = linear(x.to(weight.dtype), weight).to(x.dtype)
    return y if bias is None else y + bias
