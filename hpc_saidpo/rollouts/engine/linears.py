"""Linear layers during decoding. Few rows are decoded at once, so reading the weights dominates the CPU time.

Which way is the fastest depends on the processor, its libraries, the sizes and the number of rows: on one machine
weights · rows is the faster order, on another rows · weights, and weights that are packed once are mostly faster than
both. So the ways are timed at the first calls of each process, on the layers as they come, and the fastest one is kept.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.functional import linear

from ...policy.experts import holds_experts
from ...policy.model import Policy
from .memory import free_bytes

MOST = 256  # rows; with more, as in a prompt, all ways are alike
TIMES = 4  # that each way is timed for one size
PACKED_ROWS = 96  # for which weights are packed; any number may be multiplied with them
PACKED_SHARE = 0.2  # of the free memory that packed copies of the weights may take
WORTH = 0.97  # of nn.Linear's time: a way that needs more is not worth a copy of the weights
PLAIN, BY_WEIGHTS, MKL, ONEDNN = "rows · weights", "weights · rows", "MKL", "oneDNN"  # ways; the last two pack weights
SAME = 1e-4  # difference of two sums in float32, relative to their norm


@contextmanager
def fast(policy: Policy, precision: torch.dtype, compiled: bool = False) -> Iterator[None]:
    """A context in which the model's linear layers are fast for few rows.

    The layers of a policy that computes in bfloat16, experts of a mixture included, get weights of that precision, cast
    once: under `inference_mode` autocast keeps no copies, and would cast every float32 weight in every step. The
    precision of all other operations is autocast's.

    With torch's deterministic mode (run.deterministic) nothing is timed, and every layer computes as it is.

    Args:
        precision: for a policy that computes in float32. bfloat16 rounds the weights and inputs of these layers only;
            their inputs and outputs stay float32. float32 changes only the order of a CPU's summation.
        compiled: the model will be compiled, which is faster than our ways.
    """
    layers = [m for m in policy.model.modules() if type(m) is nn.Linear]
    computed = torch.bfloat16 if policy.precision == torch.bfloat16 else precision
    on_cpu = policy.device.type == "cpu" and not compiled
    experts = [m for m in policy.model.modules() if holds_experts(m)]
    with _cast([*layers, *experts] if policy.precision == torch.bfloat16 else []):
        is_timed = on_cpu and torch.get_deterministic_debug_mode() == 0
        if is_timed or computed != policy.precision:
            packs = is_timed and _fits(policy, layers, computed)
            rounded: dict[int, torch.Tensor] = {}  # one copy of a tied weight
            for layer in layers:
                weight = layer.weight.detach()
                weight = rounded.setdefault(id(layer.weight), weight.to(computed))
                made = _Layer(weight, layer.bias, policy.precision, is_timed, packs)
                layer.forward = made.forward  # pyright: ignore[reportAttributeAccessIssue] - torch's name differs
        try:
            yield
        finally:
            for layer in layers:
                vars(layer).pop("forward", None)  # restores the forward of the class


@contextmanager
def _cast(layers: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which layers have weights in bfloat16; afterwards they have the original ones."""
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


def _fits(policy: Policy, layers: Sequence[nn.Linear], precision: torch.dtype) -> bool:
    """Whether packed copies of all weights fit into memory."""
    n_bytes = sum({id(layer.weight): layer.weight.numel() for layer in layers}.values()) * precision.itemsize
    return n_bytes * len(_libraries(precision)) <= PACKED_SHARE * free_bytes(policy)


@dataclass
class _Layer:
    """A linear layer with its ways to compute.

    Args:
        weight: in the precision of the product.
        output: precision of the outputs.
        is_timed: the ways are timed, and the fastest is used; False: it computes as nn.Linear does.
        packs: whether weights may be packed.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    output: torch.dtype
    is_timed: bool
    packs: bool
    _packed: dict[str, torch.Tensor] = field(default_factory=dict, init=False)  # by library

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[:-1].numel()
        rows = x.reshape(n, -1).to(self.weight.dtype)
        if not self.is_timed or n > MOST:
            made = linear(rows, self.weight)
        else:
            key = (self.weight.dtype, *self.weight.shape, (n - 1).bit_length(), self.packs, torch.get_num_threads())
            made = _fastest(key, self, rows)
        made = made.to(self.output).view(*x.shape[:-1], -1)
        return made if self.bias is None else made + self.bias

    @functools.cached_property
    def ways(self) -> list[str]:
        """The names of the ways to compute its products, nn.Linear's first."""
        by_weights = [BY_WEIGHTS] if self.weight.dtype == torch.float32 else []
        return [PLAIN, *by_weights, *(_libraries(self.weight.dtype) if self.packs else ())]

    def compute(self, way: str, x: torch.Tensor) -> torch.Tensor:
        """The products with rows, [N, in] -> [N, out], without the bias."""
        if way == PLAIN:
            return linear(x, self.weight)
        if way == BY_WEIGHTS:
            return (self.weight @ x.T.contiguous()).T.contiguous()  # in the memory layout that nn.Linear returns
        if way not in self._packed:
            pack = torch.ops.mkl._mkl_reorder_linear_weight if way == MKL else torch.ops.mkldnn._reorder_linear_weight
            self._packed[way] = pack(self.weight, PACKED_ROWS)
        if way == MKL:
            return torch.ops.mkl._mkl_linear(x, self._packed[way], self.weight, None, len(x))
        return torch.ops.mkldnn._linear_pointwise(x, self._packed[way], None, "none", [], "")

    def keep(self, ways: AbstractSet[str]) -> None:
        """Drop the packed weights of all other ways: they were timed, and are slower."""
        for way in self._packed.keys() - ways:
            del self._packed[way]


def _libraries(precision: torch.dtype) -> list[str]:
    """The libraries of this torch that multiply with packed weights of a precision on this CPU."""
    is_float32, found = precision == torch.float32, []
    if is_float32 and torch.backends.mkl.is_available():
        found.append(MKL)
    if torch.backends.mkldnn.is_available() and (is_float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        found.append(ONEDNN)
    return found


@dataclass
class _Timed:
    """The times of each way so far, s, and the fastest way when all have been timed; None before."""

    seconds: dict[str, list[float]]
    best: str | None = None


_timed: dict[tuple, _Timed] = {}  # by precision, the sizes of a layer, about the number of rows, and what may be used

_used: dict[tuple, set[str]] = {}  # fastest ways for some number of rows, by precision and the sizes of a layer


def _fastest(key: tuple, layer: _Layer, x: torch.Tensor) -> torch.Tensor:
    """The layer by its fastest way; one of the first calls with such sizes is timed."""
    timed = _timed.setdefault(key, _Timed({way: [] for way in layer.ways}))
    if timed.best is not None:
        layer.keep(_used[key[:3]])
        return layer.compute(timed.best, x)
    way = min(timed.seconds, key=lambda way: len(timed.seconds[way]))
    if not timed.seconds[way]:
        made, exact = layer.compute(way, x), layer.compute(PLAIN, x)  # the first call allocates, and packs
        if (made - exact).norm() > SAME * exact.norm().clamp(min=1e-12) * _roundings(x.dtype):
            timed.seconds[way] = [float("inf")] * TIMES  # this library computes something else: never used
            return exact
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter  # other jobs share the cores
    started = clock()
    made = layer.compute(way, x)
    timed.seconds[way].append(clock() - started)
    if min(map(len, timed.seconds.values())) >= TIMES:
        shortest = {way: min(seconds) for way, seconds in timed.seconds.items()}
        best = min(shortest, key=lambda way: shortest[way])
        timed.best = best if shortest[best] < WORTH * shortest[PLAIN] else PLAIN
        _used.setdefault(key[:3], set()).add(timed.best)
    return made


def _roundings(precision: torch.dtype) -> float:
    """The rounding of a precision, as a multiple of that of float32's sums."""
    return 1.0 if precision == torch.float32 else 100.0
