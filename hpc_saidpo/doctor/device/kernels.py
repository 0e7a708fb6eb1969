"""Kernels against float32: attention, and the linear layers of the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ...clusters.neighbours import Neighbours
from ...errors import RunError, words_of
from ...policy import flash
from ...rollouts.engine import kernels, linears
from . import models
from .bench import Bench
from .result import Figures, Skipped

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
# Relative errors of a whole tensor. A number in bfloat16 is rounded by up to 2^-9 = 0.002.
# One in TensorFloat-32 is rounded by up to 2^-11 = 0.0005, which float32 must not be.
ROUNDED, EXACT = 0.02, 1e-5
SMOOTHED = 1e-3  # sums over neighbours: two whose cosines are nearly equal may change places
ROWS = (1, 8, 96, 512)  # of a decoding step


def relative(tensor: torch.Tensor, exact: torch.Tensor) -> float:
    """The norm of the difference, relative to the norm of the exact tensor."""
    exact = exact.detach().double()
    return float((tensor.detach().double() - exact).norm() / exact.norm().clamp(min=1e-12))


def attention(bench: Bench, figures: Figures) -> None:
    """Attention of torch in bfloat16, by each of its kernels, against a plain softmax in float32; and its gradients.

    The forms are those of the package: causal (packed rows), a mask of numbers (pairs in shared rows), and a mask of
    bools with fewer heads of keys than of queries (the engine's prompts).
    """
    worst: dict[str, float] = {}
    for size in bench.sizes.head_sizes:
        inputs = _inputs(bench, size)
        exact = [x.detach() for x in _with_gradients(_plain_attention, inputs)]
        for form, options in _forms(bench.device, bench.sizes.attended).items():
            for backend in ("auto", *BACKENDS):
                place = f"{backend}_{form}"
                try:
                    errors = _errors(backend, options, inputs, exact)
                except RuntimeError as error:
                    if backend == "auto":
                        raise
                    figures.note(f"{place}_ms", f"not available: {words_of(error)[:80]}", show=False)
                    continue
                worst[place] = max([worst.get(place, 0.0), *errors])
                lower = [x.detach().to(torch.bfloat16) for x in inputs]
                spent = bench.seconds(lambda b=backend, o=options, x=lower: _attend(b, o, x), 10 if bench.on_gpu else 1)
                figures.add(f"{place}_ms", 1000 * spent, show=False)
    for place, error in worst.items():
        figures.add(f"{place}_error", error, most=ROUNDED, show=False)
    figures.note("ran", f"{len(worst)} kernels and forms, worst error {max(worst.values()):.1e}")


def _inputs(bench: Bench, size: int) -> list[torch.Tensor]:
    """Queries of 12 heads, keys and values of 2, for two rows; already rounded to bfloat16, in float32."""
    generator = torch.Generator().manual_seed(size)
    shapes = [(2, n_heads, bench.sizes.attended, size) for n_heads in (12, 2, 2)]
    rounded = [torch.randn(shape, generator=generator).to(torch.bfloat16).float() for shape in shapes]
    return [x.to(bench.device).requires_grad_() for x in rounded]


def _forms(device: torch.device, n: int) -> dict[str, dict]:
    """The arguments of torch's attention for the forms in which the package calls it."""
    seen = torch.ones(n, n, dtype=torch.bool, device=device).tril()
    lowest = torch.zeros(n, n, device=device).masked_fill(~seen, torch.finfo(torch.float32).min)
    return {
        "causal": {"is_causal": True},
        "numbers": {"attn_mask": lowest.to(torch.bfloat16)[None, None]},
        "grouped": {"attn_mask": seen, "enable_gqa": True},
    }


def _attend(backend: str, options: dict, inputs: list[torch.Tensor]) -> torch.Tensor:
    query, key, value = inputs
    if not options.get("enable_gqa"):
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    if backend == "auto":
        return scaled_dot_product_attention(query, key, value, **options)
    with sdpa_kernel(BACKENDS[backend]):
        return scaled_dot_product_attention(query, key, value, **options)


def _errors(backend: str, options: dict, inputs: list[torch.Tensor], exact: list[torch.Tensor]) -> list[float]:
    """The relative errors in bfloat16: of the output, and of the gradients of queries, keys and values."""
    lower = [x.detach().to(torch.bfloat16).requires_grad_() for x in inputs]
    made = _with_gradients(lambda *x: _attend(backend, options, list(x)), lower)
    return [relative(x, y) for x, y in zip(made, exact, strict=True)]


def _plain_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    score = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    seen = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).tril()
    return score.masked_fill(~seen, float("-inf")).softmax(-1) @ value


def _with_gradients(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output, and the gradients of its weighted sum."""
    output = function(*inputs)
    weight = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output).to(output.dtype)
    return [output, *torch.autograd.grad(output, inputs, weight)]


def flash_attention(bench: Bench, figures: Figures) -> None:
    """The kernels of the package flash-attn that the engine decodes with, against the same in torch and float32."""
    obstacles = {name: flash.obstacle(name, bench.device, torch.bfloat16) for name in flash.MODULE_OF}
    usable = [name for name, obstacle in obstacles.items() if not obstacle]
    if not usable:
        raise Skipped("; ".join(f"{name}: {obstacle}" for name, obstacle in obstacles.items()))
    n, tokens = 16, bench.sizes.attended
    for name in usable:
        for size in bench.sizes.head_sizes:
            generator = torch.Generator().manual_seed(size)
            shapes = [(n, 6, 2, size), (n, 2, tokens, size), (n, 2, tokens, size)]
            query, *stored = (torch.randn(s, generator=generator).to(bench.device, torch.bfloat16) for s in shapes)
            length = torch.linspace(1, tokens, n, device=bench.device).int()
            parts = [
                kernels.attend_part(kernel, q, kept, length, size**-0.5, None)
                for kernel, q, kept in (
                    (flash.kernel(name), query, stored),
                    (kernels.by_torch, query.float(), [x.float() for x in stored]),
                )
            ]
            for part, made, exact in zip(("attention", "sum"), *parts, strict=True):
                figures.add(f"{name}_{size}_{part}_error", relative(made, exact), most=ROUNDED)


def linear_layers(bench: Bench, figures: Figures) -> None:
    """The linear layers that the engine decodes with, against the same in float64 on the CPU."""
    shape = bench.sizes.small
    layer = nn.Linear(shape.hidden, shape.vocabulary)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * shape.hidden**-0.5)
    rows = {n: torch.randn(n, shape.hidden, generator=generator) for n in ROWS}
    weight, bias = (x.detach().double() for x in layer.parameters())
    exact = {n: nn.functional.linear(x.double(), weight, bias) for n, x in rows.items()}
    model = models.small_model(models.llama_config(shape), bench.device)
    model.lm_head = layer.to(bench.device)
    policy = models.policy_of(model, bench.device)
    ways = [
        (torch.float32, torch.float32, EXACT),
        (torch.float32, torch.bfloat16, ROUNDED),
        (torch.bfloat16, torch.float32, ROUNDED),
    ]
    for precision, weights, most in ways:
        name = f"policy_{_short(precision)}_weights_{_short(weights)}"
        here = dataclasses.replace(policy, precision=precision)
        try:
            with torch.inference_mode(), linears.fast(here, weights), here.autocast():
                made = {n: model.lm_head(x.to(bench.device)).cpu() for n, x in rows.items()}
        except RunError as error:
            figures.note(name, f"refused: {error}", show=False)
            continue
        figures.add(f"{name}_error", max(relative(made[n], exact[n]) for n in ROWS), most=most)


def _short(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def neighbours(bench: Bench, figures: Figures) -> None:
    """The evidence of similar texts (clusters.kind=kernel), against the same on the CPU."""
    rng = np.random.default_rng(0)
    vector_UD = rng.normal(size=(20 * bench.sizes.attended, 64)).astype(np.float32)
    vector_UD /= np.linalg.norm(vector_UD, axis=1, keepdims=True)
    row_T = np.arange(0, len(vector_UD), 3)
    value_TF = rng.random((len(row_T), 8))
    made, exact = (
        torch.from_numpy(Neighbours(np.arange(len(vector_UD)), vector_UD, 20, device).smooth(row_T, value_TF))
        for device in (bench.device, torch.device("cpu"))
    )
    figures.add("error", relative(made, exact), most=SMOOTHED)
