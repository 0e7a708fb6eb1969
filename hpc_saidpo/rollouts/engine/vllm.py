"""vLLM as the engine: an extra (`pip install 'hpc_saidpo[vllm]'`), written from vLLM's source at 0.33.0, not run yet.

vLLM runs in another process. That process loads the policy from its folder onto this rank's GPU; the copy in this
process stays.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import RunError, shown
from ...policy.cache import when_released
from ...policy.model import Policy
from ...settings.rollouts import Sampling
from .sampling import Response

_running: dict[tuple, Any] = {}  # vllm.LLM by its arguments; one at most


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    sampling: Sampling,
    memory: float,
) -> None:
    """Fill in the responses, like `shared.generate`; but vLLM has its own generators: a seed draws other tokens.

    The tokens that a seed draws may also depend on the rest of its batch, by rounding.

    Args:
        memory: share of the GPU's memory for vLLM's copy of the weights, and its keys and values.

    Raises:
        RunError: vLLM is not installed, does not start, or did not complete a response; or there is no GPU.
    """
    llm = _running_llm(policy, memory)
    package = importlib.import_module("vllm")
    requests, parameters, ordered = [], [], []
    for prompt, seeds_K, responses_K in zip(prompts, seeds, responses, strict=True):
        for seed, response in zip(seeds_K, responses_K, strict=True):
            requests.append(package.TokensPrompt(prompt_token_ids=list(prompt)))
            parameters.append(package.SamplingParams(**request(seed, sampling, policy.eos_ids)))
            ordered.append(response)
    started = time.perf_counter()
    results = llm.generate(requests, parameters, use_tqdm=False)
    fill(ordered, [result.outputs[0] for result in results], sampling, time.perf_counter() - started)


def request(seed: int, sampling: Sampling, eos_ids: set[int]) -> dict[str, Any]:
    """The arguments of vLLM's SamplingParams for one response.

    Stop strings are searched in text that includes special tokens, as in the other engines. The tokens of a response
    include those that ended it.
    """
    return {
        "n": 1,
        "seed": seed % 2**63 if sampling.temperature > 0 else None,  # vLLM stores seeds as int64
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,  # 0 keeps all, as here
        "min_p": sampling.min_p,
        "max_tokens": sampling.max_new_tokens,
        "stop": list(sampling.stop),
        "stop_token_ids": sorted(eos_ids),
        "logprobs": 0,  # of the drawn token only
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


def fill(responses: Sequence[Response], outputs: Sequence[Any], sampling: Sampling, seconds: float) -> None:
    """Fill in responses from vLLM's outputs.

    Args:
        outputs: each with token_ids, finish_reason and cumulative_logprob, which is at temperature 1 and without
            truncation (logprobs_mode="raw_logprobs").
        seconds: time of all responses together; divided among them in proportion to their tokens.

    Raises:
        RunError: a response ended before its end-of-sequence token, stop string or maximum length.
    """
    n_tokens = sum(len(output.token_ids) for output in outputs)
    for response, output in zip(responses, outputs, strict=True):
        response.tokens = list(output.token_ids)
        response.finished = output.finish_reason == "stop"
        if not response.finished and len(response.tokens) != sampling.max_new_tokens:
            raise RunError(
                f"rollouts.generate.engine=vllm: a response ended after {len(response.tokens)} tokens by "
                f"{output.finish_reason!r}: lower rollouts.max_new_tokens, or use engine=shared"
            )
        response.logp = output.cumulative_logprob
        response.seconds = seconds * len(response.tokens) / max(1, n_tokens)


@when_released
def free() -> None:
    """End vLLM's process, if there is one, because its memory is needed."""
    while _running:
        _, llm = _running.popitem()
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


def _running_llm(policy: Policy, memory: float) -> Any:
    """The running vllm.LLM of a policy; started if necessary."""
    key = policy.path, policy.precision, memory
    if key not in _running:
        free()
        _running[key] = _start(policy, memory)
    return _running[key]


def _start(policy: Policy, memory: float) -> Any:
    if policy.device.type != "cuda":
        raise RunError("rollouts.generate.engine=vllm needs a GPU, and there is none: use engine=shared")
    with _environment(policy.device.index or 0):
        try:
            return importlib.import_module("vllm").LLM(**arguments(policy, memory))
        except ImportError as error:
            raise RunError(
                f"rollouts.generate.engine=vllm: {error}: pip install 'hpc_saidpo[vllm]', or use engine=shared"
            ) from error
        except (RuntimeError, ValueError) as error:
            raise RunError(
                f"rollouts.generate.engine=vllm does not start with the policy at {shown(policy.path)}: {error}: see "
                "vLLM's messages above; if memory is short, set rollouts.generate.vllm_memory, or use engine=shared"
            ) from error


def arguments(policy: Policy, memory: float) -> dict[str, Any]:
    """The arguments of vLLM's LLM for a policy. Model and memory limit the length of a sequence."""
    return {
        "model": policy.path,
        "dtype": str(policy.precision).removeprefix("torch."),
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": memory,
        "max_model_len": -1,  # as many as fit into memory, at most those of the model
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "seed": 0,
        "disable_log_stats": True,
        "trust_remote_code": False,
    }


@contextlib.contextmanager
def _environment(gpu: int) -> Iterator[None]:
    """The environment that vLLM's process inherits. It sees this rank's GPU only; it is not forked: MPI forbids it."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    changes = {
        "CUDA_VISIBLE_DEVICES": visible[gpu] if visible else str(gpu),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_NO_USAGE_STATS": "1",  # it would send statistics to its developers
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
