"""Check the nodes of a job before the job: does a run find all that it needs?

    srun --mpi=pmi2 python -m mpi4py -m hpc_saidpo doctor \\
        experiment=paper_qwen7b pool.path=... --json findings.json
    mpiexec -n 2 python -m mpi4py -m hpc_saidpo doctor experiment=demo

Takes under a minute. Prints one line for each check: ok, warning or failure,
with a remedy. On a GPU node each GPU code path is run once and compared with
the CPU.

    hpc-saidpo doctor --gpu --json gpu.json

examines one GPU, in under 8 minutes and without a model or a network. It
compares kernels, rollouts, DPO rounds, process groups and libraries with
float32, the CPU or transformers, and measures the speed of rollouts and of DPO
steps with a random model of 1.5 billion weights. Prints one line for each
check: PASS, FAIL or SKIP, with the reason. --device cpu makes the same checks
in small on a machine without a GPU.

Exits 0 when no check fails, 1 when one fails, 2 on a wrong command.
"""

from __future__ import annotations

import gc
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ..errors import RunError
from .help import parser


def main(arguments: Sequence[str]) -> int:
    """Examine the nodes, or one GPU, and print the findings. Returns the exit code. Collective."""
    options = parser("doctor", __doc__)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the findings to this file, too")
    options.add_argument("--runs", type=int, default=1, metavar="N", help="room on disk for N such runs (default: 1)")
    options.add_argument("--gpu", action="store_true", help="examine one GPU: is it right, and how fast is it?")
    options.add_argument("--minutes", type=float, default=8.0, help="time limit of --gpu (default: 8)")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="device of --gpu (default: cuda)")
    options.add_argument("overrides", nargs="*", help="the overrides of the run; none with --gpu")
    values = options.parse_intermixed_args(arguments)
    from .failures import failures_end_the_job

    if values.gpu:
        with failures_end_the_job(None):
            return _examine_gpu(values)
    from ..doctor.finding import FAILURE, plain, table
    from ..parallel.launch import connect
    from ..screen import output_width
    from .compose import from_overrides

    with failures_end_the_job(None):
        world = connect()
    with failures_end_the_job(world):
        config = from_overrides(values.overrides)
        from ..doctor.examine import examine  # takes seconds: only when the configuration is valid

        world.use_threads(1 if config.run.deterministic else config.run.threads)
        findings = examine(world, config, values.runs)
        if world.is_root:
            print(table(findings, output_width()), flush=True)
            if values.json:
                values.json.write_text(json.dumps(plain(findings), indent=1))
        world.barrier()
    return int(any(f.state == FAILURE for f in findings))


def _examine_gpu(values: Namespace) -> int:
    """Examine one device. Returns 1 when a check fails, else 0.

    Raises:
        RunError: the command is wrong, there is no GPU, or the file cannot be written.
    """
    if values.overrides:
        raise RunError(f"doctor --gpu takes no overrides ({' '.join(values.overrides)}): leave them out")
    import torch

    if values.device == "cuda" and not torch.cuda.is_available():
        raise RunError(
            "doctor --gpu: torch sees no GPU: request one (--gpus-per-task=1), or rehearse with --device cpu"
        )
    if values.json:
        try:
            values.json.touch()
        except OSError as error:
            raise RunError(f"--json {values.json}: cannot be written ({error.strerror}): name another file") from error
    from ..doctor.device.examine import examine
    from ..doctor.device.result import FAIL

    gc.freeze()  # each check searches for garbage, and none of the imported libraries is
    device = torch.device("cuda", torch.cuda.current_device()) if values.device == "cuda" else torch.device("cpu")
    results = examine(device, values.minutes, values.json, lambda line: print(line, flush=True))
    return int(any(result.state == FAIL for result in results))
