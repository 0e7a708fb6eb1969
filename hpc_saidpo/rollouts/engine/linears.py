"""The linear layers while decoding: few rows at a time, so that what a CPU spends on weights is most of the work."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import linear

from ...errors import RunError
from ...policy.model import Policy

# Of a CPU: rows of a product for which weights times rows is faster than rows times weights (tools/bench_generate.py).
FEWEST, MOST = 4, 128


@contextmanager
def fast(policy: Policy, precision: torch.dtype, compiled: bool = False) -> Iterator[None]:
    """The model's linear layers made for few rows.

    Of a policy that computes in bfloat16 they get weights of that precision, cast once: under `inference_mode` autocast
    keeps no copies, and would cast every float32 weight in every step. What else is computed, and in which precision,
    stays with autocast.

    Args:
        precision: of a policy that computes in float32. bfloat16 rounds weights and inputs of these layers, and of
            nothing else, and inputs and outputs stay float32; float32 changes nothing but the order in which a CPU
            adds up.
        compiled: the model will be compiled, which does better than our order.

    Raises:
        RunError: this CPU has no bfloat16 matrix unit (AMX), without which it would be slower than float32.
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
    rounded: dict[int, torch.Tensor] = {}  # of a tied weight there is one copy
    for module in layers:
        own = functools.partial(_by_weights, module.weight, module.bias)
        if precision == torch.bfloat16:
            weight = rounded.setdefault(id(module.weight), module.weight.detach().to(torch.bfloat16))
            own = functools.partial(_rounded, weight, module.bias)
        module.forward = own
    try:
        yield
    finally:
        for module in layers:
            del module.forward  # the class's own is back


@contextmanager
def _cast(layers):
    """The layers with weights in bfloat16; their own ones afterwards."""
    own = [dict(module._parameters) for module in layers]
    cast: dict[int, nn.Parameter] = {}
    for module in layers:
        for name, kept in module._parameters.items():
            if kept is not None and id(kept) not in cast:
                cast[id(kept)] = nn.Parameter(kept.detach().to(torch.bfloat16), requires_grad=False)
            module._parameters[name] = cast.get(id(kept))
    try:
        yield
    finally:
        for module, parameters in zip(layers, own, strict=True):
            module._parameters.update(parameters)


def _check_bfloat16(policy: Policy) -> None:
    if policy.device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        raise RunError(
            "rollouts.generate.linears=bfloat16 needs a CPU with AMX, and this one has none: set it to float32"
        )


def _by_weights(weight, bias, x):
    n = x.shape[:-1].numel()
    if not FEWEST <= n <= MOST:
        return linear(x, weight, bias)
    y = (weight @ x.reshape(n, -1).T.contiguous()).T
    y = y.reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _rounded(weight, bias, x):
    y = linear(x.to(weight.dtype), weight).to(x.dtype)
    return y if bias is None else y + bias
