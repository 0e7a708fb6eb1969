"""Every check of one device, in order and within a time limit. Each result is shown and stored at once."""

from __future__ import annotations

import faulthandler
import json
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType

import torch

from ...errors import is_out_of_memory
from ...parallel.devices import driver_cuda
from ...store import files
from .. import gpu
from . import decoding, kernels, libraries, speed, training
from .bench import CPU_SIZES, GPU_SIZES, Bench
from .result import FAIL, PASS, SKIP, Figures, Result, Skipped

PACKAGES = (
    "transformers",
    "numpy",
    "scikit-learn",
    "triton",
    "peft",
    "flash-attn",
    "cupy-cuda13x",
    "cuml-cu13",
    "vllm",
)
GRACE_S = 60.0  # after the time limit: a check that hangs in a library is then ended, and with it the process
LONGEST = 600  # characters of a failure


@dataclass(frozen=True)
class Check:
    """A check of a device.

    Attributes:
        make: adds its figures; raises `Skipped` where it cannot be made.
        needed_s: an estimate of its time on a GPU. It is skipped when less is left.
        frees: the large model is not needed after it.
    """

    name: str
    make: Callable[[Bench, Figures], None]
    needed_s: float = 10.0
    frees: bool = False


def _micro(path: Callable[[torch.device], tuple[str, bool]]) -> Callable[[Bench, Figures], None]:
    """A comparison of `doctor.gpu`, which uses the shipped micro model, as a check."""

    def make(bench: Bench, figures: Figures) -> None:
        text, good = path(bench.device)
        figures.note("compared", text)
        figures.require(good, "differs")

    return make


def _name(of_micro: str) -> str:
    return re.sub(r"\W", "_", of_micro.replace("GPU", "micro").lower())


# Cheap ones first. A process group may hang in a library, and vLLM takes minutes to start: they come last.
CHECKS = (
    Check("attention", kernels.attention),
    Check("flash_attention", kernels.flash_attention),
    Check("linear_layers", kernels.linear_layers),
    Check("neighbours", kernels.neighbours),
    Check("log_probabilities", training.log_probabilities),
    *(Check(_name(of_micro), _micro(path)) for of_micro, path in gpu.PATHS.items()),
    Check("engine", decoding.engine),
    Check("dpo_round", training.dpo_round),
    Check("dpo_resumed", training.dpo_resumed),
    Check("lora_round", training.lora_round),
    Check("cuda_graph", decoding.graph),
    Check("cuml", libraries.cuml),
    Check("cupy", libraries.cupy),
    Check("peak", speed.peak),
    Check("rollouts", speed.rollouts, 30),
    Check("rollouts_common_start", speed.rollouts_common, 30),
    Check("rollouts_by_generate", speed.rollouts_generate, 30),
    Check("dpo_step", speed.dpo_step, 30),
    Check("dpo_step_checkpointing", speed.dpo_step_checkpointing, 30, frees=True),
    Check("collectives", training.collectives, 15),
    Check("distributed", training.distributed, 30),
    Check("vllm", libraries.vllm_engine, 150),
)


class OutOfTime(BaseException):
    """The time limit passed during a check. It is no `Exception`: libraries that catch those do not catch it."""


def examine(
    device: torch.device,
    minutes: float,
    path: Path | None,
    show: Callable[[str], None],
    checks: Sequence[Check] = CHECKS,
) -> list[Result]:
    """Make the checks. Returns their results.

    Args:
        minutes: time limit of all checks together; one that hangs for another minute ends the process.
        path: file of the results as JSON, written again after each check; None for none.
        show: prints a line.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    bench = Bench(device, GPU_SIZES if device.type == "cuda" else CPU_SIZES)
    facts = machine(device)
    show(", ".join(f"{name} {value}" for name, value in facts.items()))
    started, results = time.monotonic(), []
    until = started + 60 * minutes
    width = max(len(check.name) for check in checks)
    with _ended_after(60 * minutes + GRACE_S):
        for check in checks:
            results.append(_make(check, bench, until))
            show(results[-1].line(width))
            if check.frees:
                bench.forget()
            if path:
                _write(path, facts, results)
    counts = [f"{sum(result.state == state for result in results)} {state}" for state in (PASS, FAIL, SKIP)]
    show(f"{', '.join(counts)} in {time.monotonic() - started:.0f} s")
    return results


def _make(check: Check, bench: Bench, until: float) -> Result:
    """Make one check. Whatever it raises becomes its result, so that the other checks are still made.

    A lack of memory is a skip: the GPU is too small, or others use it.
    """
    started, figures = time.monotonic(), Figures()
    left = until - started
    if left < check.needed_s:
        return Result(check.name, SKIP, f"no time left: {max(0.0, left):.0f} s of {check.needed_s:.0f} s", 0.0, {})
    try:
        with _limited(left):
            check.make(bench, figures)
        state, text = FAIL if figures.faults else PASS, figures.text()
    except Skipped as reason:
        state, text = SKIP, str(reason)
    except OutOfTime:
        state, text = FAIL, f"not done when the time was over, after {left:.0f} s; {figures.text()}"
    except Exception as error:  # noqa: BLE001 - it is reported as a failure
        state = SKIP if is_out_of_memory(error) else FAIL
        text = f"{_describe(error)} | {figures.text()}"
    bench.release()
    return Result(check.name, state, text, time.monotonic() - started, figures.values)


def _describe(error: Exception) -> str:
    """An exception on one line: its type and message, and the innermost lines of the package."""
    package = Path(__file__).parents[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(package)]
    places = " < ".join(f"{Path(f.filename).relative_to(package)}:{f.lineno}" for f in reversed(frames[-4:]))
    message = " ".join(str(error).split())[:LONGEST]
    return f"{type(error).__name__}: {message} ({places})"


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """A context that raises OutOfTime after some seconds, as soon as Python runs."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """A context that ends the process after some seconds, with its stack on stderr."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def machine(device: torch.device) -> dict[str, str]:
    """The facts about the machine and its software."""
    facts = {"device": str(device), "python": platform.python_version(), "torch": str(torch.__version__)}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        driver = driver_cuda() or 0
        facts |= {
            "gpu": properties.name,
            "memory": f"{properties.total_memory / 2**30:.0f} GiB",
            "capability": f"{properties.major}.{properties.minor}",
            "driver": f"for CUDA {driver // 1000}.{driver % 1000 // 10}",
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    installed = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return facts | {name: installed[name] for name in PACKAGES if name in installed}


def _write(path: Path, facts: dict[str, str], results: Sequence[Result]) -> None:
    flat = {key: value for result in results for key, value in result.flat().items()}
    files.write_text(path, json.dumps({"machine": facts, **flat}, indent=1) + "\n")
