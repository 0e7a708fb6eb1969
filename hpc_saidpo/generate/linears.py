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
    """The model's linear layers made for few rows. Inputs and outputs keep their precision.

    Args:
        precision: bfloat16 rounds weights and inputs of these layers, and of nothing else; float32 changes nothing but
            the order in which a CPU adds up.

    Raises:
        RunError: this CPU has no bfloat16 matrix unit (AMX), without which it would be slower than float32.
    """
    if precision == torch.bfloat16:
        _check_bfloat16(policy)
    changed = []
    if policy.device.type == "cpu" or precision == torch.bfloat16:
        changed = [m for m in policy.model.modules() if type(m) is nn.Linear]
    forwards: dict[int, object] = {}  # of a tied weight there is one copy
    for module in changed:
        if precision == torch.bfloat16:
            forwards.setdefault(id(module.weight), module.weight.detach().to(torch.bfloat16))
            own = functools.partial(_rounded, forwards[id(module.weight)], module.bias)
        else:
            own = functools.partial(_by_weights, module.weight, module.bias)
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


def _rounded(weight, bias, x):
    y = linear(x.to(weight.dtype), weight).to(x.dtype)
    return y if bias is None else y + bias
