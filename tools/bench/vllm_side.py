"""vLLM's CPU build beside the engine: one process in an environment of its own, which stays while others take turns.

Its start, which compiles the model for minutes, is not counted. It runs on one thread, with vLLM's whole engine in the
one process, so that the CPU time of the process is that of the generation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

CACHE_GIB = 4  # for keys and values
ONE_THREAD = {**dict.fromkeys(common.THREADS, "1"), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
IN_ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}


def install() -> str:
    """Make vLLM's environment, unless it is there; return the path of its Python."""
    made = subprocess.run(
        [str(common.HOME / "tools" / "test_vllm.sh"), "--install"], check=True, stdout=subprocess.PIPE, text=True
    )
    return made.stdout.splitlines()[-1]


class Vllm:
    """vLLM with a model in one precision.

    Args:
        python: of the environment that `install` made.
        model: folder of the model.
        precision: float32 or bfloat16.
    """

    def __init__(self, python: str, model: Path, precision: str):
        environment = {**os.environ, **ONE_THREAD, **IN_ONE_PROCESS}
        self._process = subprocess.Popen(
            [python, __file__, str(model), precision],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._answer()  # it has started

    def generate(
        self, prompts: Sequence[Sequence[int]], k: int, new_tokens: int, temperature: float, eos_ids: Sequence[int]
    ) -> tuple[float, int]:
        """Generate k responses to each prompt. Return CPU seconds and the number of tokens."""
        request = {"prompts": prompts, "k": k, "max_tokens": new_tokens, "temperature": temperature, "eos": eos_ids}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return answer["cpu_s"], answer["tokens"]

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):  # vLLM may print lines of its own
                return json.loads(line)
        raise RuntimeError(f"vLLM's process ended with {self._process.wait()}: start {__file__} by hand to see why")

    def __enter__(self) -> Vllm:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def serve(model: str, precision: str) -> None:
    """Answer requests on standard input, one a line, until it ends."""
    import torch
    from vllm import LLM, SamplingParams, TokensPrompt

    torch.set_num_threads(1)
    llm = LLM(
        model=model, dtype=precision, enable_prefix_caching=True, kv_cache_memory_bytes=CACHE_GIB * 2**30,
        max_num_seqs=256, seed=0, disable_log_stats=True,
    )  # fmt: skip
    print(json.dumps({"started": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        sampling = SamplingParams(
            n=request["k"], temperature=request["temperature"], max_tokens=request["max_tokens"],
            stop_token_ids=request["eos"], detokenize=False,
        )  # fmt: skip
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in request["prompts"]]
        llm.reset_prefix_cache()  # a run asks each question once
        begun = time.process_time()
        made = llm.generate(prompts, sampling, use_tqdm=False)
        cpu_s = time.process_time() - begun
        tokens = sum(len(output.token_ids) for result in made for output in result.outputs)
        print(json.dumps({"cpu_s": cpu_s, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
