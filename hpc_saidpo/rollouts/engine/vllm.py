"""vLLM as the engine: an extra (`pip install 'hpc_saidpo[vllm]'`), not run here; its source was read at 0.33.0.

A process of its own reads the policy from its folder, onto this rank's GPU, beside the policy that is loaded here.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import time
from collections.abc import Iterator, Sequence

from ...errors import RunError
from ...policy.cache import when_released
from ...policy.model import Policy
from ...settings.rollouts import Sampling
from .sampling import Response

_running: dict[tuple, object] = {}  # vllm.LLM by what it was started with; one at most


def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    how: Sampling,
    memory: float,
) -> None:
    """Fill in the responses; as `shared.generate`, but vLLM has its own generators: a seed draws other tokens.

    Which tokens a seed draws may also depend, by rounding, on what else is in its batch.

    Args:
        memory: share of the GPU's memory for vLLM's copy of the weights and its keys and values.

    Raises:
        RunError: vLLM is not installed, does not start, or did not end a response; or there is no GPU.
    """
    llm = _started(policy, memory)
    package = importlib.import_module("vllm")
    asked, own = [], []
    for prompt, row, mine in zip(prompts, seeds, responses, strict=True):
        for seed, response in zip(row, mine, strict=True):
            parameters = package.SamplingParams(**request(seed, how, policy.eos_ids))
            asked.append((package.TokensPrompt(prompt_token_ids=list(prompt)), parameters))
            own.append(response)
    began = time.perf_counter()
    answers = llm.generate([prompt for prompt, _ in asked], [how for _, how in asked], use_tqdm=False)
    fill(own, [answer.outputs[0] for answer in answers], how, time.perf_counter() - began)


def request(seed: int, how: Sampling, eos_ids: set[int]) -> dict:
    """vLLM's SamplingParams of one response.

    Stop strings are looked for in text that shows special tokens, as the other engines do; what ended a response is
    among its tokens.
    """
    return {
        "n": 1,
        "seed": seed % 2**63 if how.temperature > 0 else None,  # it keeps seeds as int64
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": how.top_k,  # 0 is all, as here
        "min_p": how.min_p,
        "max_tokens": how.max_new_tokens,
        "stop": list(how.stop),
        "stop_token_ids": sorted(eos_ids),
        "logprobs": 0,  # of the drawn token only
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


def fill(responses: Sequence[Response], outputs: Sequence, how: Sampling, seconds: float) -> None:
    """Responses from vLLM's outputs.

    Args:
        outputs: each with token_ids, finish_reason and cumulative_logprob, which is at temperature 1 and with nothing
            cut off (logprobs_mode="raw_logprobs").
        seconds: that all of them took; shared out by their tokens.

    Raises:
        RunError: a response ended for another reason than its end or its length.
    """
    n_tokens = sum(len(output.token_ids) for output in outputs)
    for response, output in zip(responses, outputs, strict=True):
        response.tokens = list(output.token_ids)
        response.finished = output.finish_reason == "stop"
        if not response.finished and len(response.tokens) != how.max_new_tokens:
            raise RunError(
                f"rollouts.generate.engine=vllm: a response ended after {len(response.tokens)} tokens by "
                f"{output.finish_reason!r}: lower rollouts.max_new_tokens, or use engine=shared"
            )
        response.logp = output.cumulative_logprob
        response.seconds = seconds * len(response.tokens) / max(1, n_tokens)


@when_released
def free() -> None:
    """End the process that serves the policy, if there is one: its memory is wanted."""
    while _running:
        _, llm = _running.popitem()
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


def _started(policy: Policy, memory: float):
    key = policy.path, policy.precision, memory
    if key not in _running:
        free()
        _running[key] = _start(policy, memory)
    return _running[key]


def _start(policy: Policy, memory: float):
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
                f"rollouts.generate.engine=vllm does not start with the policy at {policy.path}: {error}: see its own "
                "lines above; if memory is short, set rollouts.generate.vllm_memory, or use engine=shared"
            ) from error


def arguments(policy: Policy, memory: float) -> dict:
    """vLLM's LLM for a policy. It may be as long as the model allows, or as its memory does."""
    return {
        "model": policy.path,
        "dtype": str(policy.precision).removeprefix("torch."),
        "tensor_parallel_size": 1,
        "gpu_memory_utilization": memory,
        "max_model_len": -1,  # what memory holds, at most the model's own
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "seed": 0,
        "disable_log_stats": True,
        "trust_remote_code": False,
    }


@contextlib.contextmanager
def _environment(gpu: int) -> Iterator[None]:
    """What vLLM's process inherits: it sees this rank's GPU only, and it is not forked, which MPI forbids."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    wanted = {
        "CUDA_VISIBLE_DEVICES": visible[gpu] if visible else str(gpu),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_NO_USAGE_STATS": "1",  # it would tell its makers over the network
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
