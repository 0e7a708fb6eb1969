"""The linear layers while decoding: few rows at a time, so that what a CPU spends on weights is most of the work."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import linear

from ..policy import Policy
from ..records import RunError

# Of a CPU: rows of a product for which weights times rows is faster than rows times weights (tools/bench_generate.py).
FEWEST, MOST = 4, 128


@contextmanager
def fast(policy: Policy, precision: torch.dtype) -> Iterator[None]:
    """The model's linear layers made for few rows.

    A policy that computes in bfloat16 casts its float32 weights in every layer of every step: under `inference_mode`
    autocast keeps no copies. Here they are cast once; inputs, outputs and all other layers are as autocast has them.

    Args:
        precision: of a policy that computes in float32. bfloat16 rounds weights and inputs of these layers, and of
            nothing else, and inputs and outputs stay float32; float32 changes nothing but the order in which a CPU
            adds up.

    Raises:
        RunError: this CPU has no bfloat16 matrix unit (AMX), without which it would be slower than float32.
    """
    computes_in = policy.precision
    if computes_in == torch.float32 and precision == torch.bfloat16:
        _check_bfloat16(policy)
    changed = []
    if policy.device.type == "cpu" or torch.bfloat16 in (computes_in, precision):
        changed = [m for m in policy.model.modules() if type(m) is nn.Linear]
    rounded: dict[int, torch.Tensor] = {}  # of a tied weight there is one copy
    for module in changed:
        weight, bias = module.weight, module.bias
        if torch.bfloat16 in (computes_in, precision):
            weight = rounded.setdefault(id(weight), weight.detach().to(torch.bfloat16))
        if computes_in == torch.bfloat16:
            own = functools.partial(_cast, weight, None if bias is None else bias.detach().to(torch.bfloat16))
        else:
            own = functools.partial(_rounded if precision == torch.bfloat16 else _by_weights, weight, bias)
        module.forward = own
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # the class's own is back


def _check_bfloat16(policy: Policy) -> None:
    if policy.device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        raise RunError(
            "rollouts.generate.linears=bfloat16 needs a CPU with AMX, and this one has none: set it to float32"
        )


def _by_weights(weight, bias, x):
    n = x.shape[:-1].numel()
    if not FEWEST <= n <= MOST:
        return linear(x, weight, bias)
    y = (weight @ x.reshape(n, -1).T).T
    y = y.reshape(*x.shape[:-1], -1)
    return y if bias is None else y + bias


def _cast(weight, bias, x):
    return linear(x.to(weight.dtype), weight, bias)


def _rounded(weight, bias, x):
    y = linear(x.to(weight.dtype), weight).to(x.dtype)
    return y if bias is None else y + bias
