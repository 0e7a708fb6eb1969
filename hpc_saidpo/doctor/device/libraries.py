"""Optional libraries of a GPU against those of the CPU: cuML, CuPy, vLLM."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import torch

from ... import settings
from ...policy import locate, plain
from ...policy.model import Policy
from ...rollouts.engine import vllm
from ...rollouts.engine.engine import generate
from ...sampler.draw import draw, uniforms
from ...settings.rollouts import Sampling
from .. import gpu
from .bench import Bench
from .result import Figures, Skipped

QUESTIONS = 1_000_000
DRAWN = 1000


def _require(bench: Bench, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise Skipped(f"the package {package} is not installed")
    if not bench.on_gpu:
        raise Skipped(f"{package} needs a GPU")


def cuml(bench: Bench, figures: Figures) -> None:
    """K-Means of cuML against scikit-learn."""
    _require(bench, "cuml")
    text, good = gpu.kmeans(bench.device)
    figures.note("compared", text)
    figures.require(good, "K-Means differs from scikit-learn's")


def cupy(bench: Bench, figures: Figures) -> None:
    """The draw of questions by CuPy against NumPy: equal numbers, equal questions."""
    _require(bench, "cupy")
    xp = importlib.import_module("cupy")
    with xp.cuda.Device(bench.device.index or 0):
        equal = bool((xp.asnumpy(uniforms(7, 0, 100_000, xp)) == uniforms(7, 0, 100_000)).all())
        figures.require(equal, "the uniform numbers differ from NumPy's")
        log_weight_N = np.random.default_rng(0).normal(size=QUESTIONS)
        theirs = draw(xp.asarray(log_weight_N), DRAWN, 7)
    same = float((theirs == draw(log_weight_N, DRAWN, 7)).mean())
    figures.add("same_questions", same)
    figures.require(same == 1, "other questions are drawn than by NumPy")


def vllm_engine(bench: Bench, figures: Figures) -> None:
    """The engine vllm with the shipped micro model: log-probabilities against the plain forward pass."""
    _require(bench, "vllm")
    config = settings.Policy(path=gpu.MICRO, precision="bfloat16", attention="sdpa")
    policy = Policy.load(locate.locate(gpu.MICRO), config, bench.device)
    prompts = [policy.encode_prompt(question, chat=False) for question in gpu.QUESTIONS]
    seeds = [[2 * i, 2 * i + 1] for i in range(len(prompts))]
    try:
        made = generate(policy, prompts, seeds, Sampling(1.0, 1.0, 24), settings.Engine(engine="vllm", vllm_memory=0.2))
    finally:
        vllm.free()
    errors = []
    for prompt, responses in zip(prompts, made, strict=True):
        for response in responses:
            with torch.no_grad():
                logp_T, _ = plain.logps(policy.model, prompt, response.tokens)
            errors.append(abs(float(logp_T.sum()) - response.logp) / len(response.tokens))
    figures.add("nats_per_token", float(np.mean(errors)), most=0.05)
