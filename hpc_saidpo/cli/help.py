"""Help texts of the command line, at most 80 columns wide. Imports neither Hydra nor a heavy library."""

from __future__ import annotations

import argparse
import sys
import textwrap
from typing import TextIO

from .. import terminal
from ..parallel import launched
from ..settings.keys import conf_folder, fields_at, options_of

WIDTH = 80
# Of each verb: its work, and an example.
VERBS = {
    "run": ("run SAI-DPO; also without a verb", "hpc-saidpo experiment=tiny"),
    "evaluate": (
        "evaluate a policy on benchmarks",
        "hpc-saidpo evaluate policy.path=runs/tiny experiment=tiny",
    ),
    "doctor": ("check nodes, inputs and memory before a job", "hpc-saidpo doctor experiment=tiny"),
    "plan": ("estimate the memory of each GPU", "hpc-saidpo plan Qwen2.5-7B --gpus 8"),
    "clusters": ("suggest a number of clusters", "hpc-saidpo clusters --n 6,12,24 experiment=tiny"),
    "status": ("show how far each run is", "hpc-saidpo status runs --watch"),
    "compare": ("compare several runs", "hpc-saidpo compare runs --by sampler.rule"),
    "show": ("show what the model answered", "hpc-saidpo show runs/tiny --wrong"),
    "explain": (
        "explain why a question was drawn",
        "hpc-saidpo explain runs/tiny --iteration 0 --question arithmetic-7",
    ),
    "export": (
        "write pairs, rollouts or metrics for other programs",
        "hpc-saidpo export runs/tiny --what pairs --format jsonl",
    ),
    "verify": ("check every file of a run against its checksum", "hpc-saidpo verify runs/tiny"),
    "grade": ("grade a file of responses", "hpc-saidpo grade responses.jsonl"),
}
OVERRIDES = """\
An override is KEY=VALUE and changes one setting of a run: sampler.alpha=3,
'evaluate.benchmarks=[math500]'. GROUP=NAME selects a file of a group of
settings: policy=smollm2. experiment=NAME selects a whole set-up."""


def show(text: str, file: TextIO | None = None) -> None:
    """Print a text once: under mpiexec or srun only the first process prints, without a start of MPI."""
    if launched.rank() == 0:
        print(text, file=file or sys.stdout, flush=True)


def parser(verb: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a verb's arguments; it shows the description as it is. From now on output is guarded."""
    terminal.guard()
    return argparse.ArgumentParser(
        prog=f"hpc-saidpo {verb}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def overview() -> str:
    """Return the text of `hpc-saidpo --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}s}  {work}\n  {'':{width}s}    {example}" for verb, (work, example) in VERBS.items()]
    return "\n".join([
        "Self-aware iterative DPO with dynamic sampling (SAI-DPO, arXiv 2505.16176).",
        "",
        "  hpc-saidpo [VERB] [ARGUMENTS]",
        "  python -m hpc_saidpo [VERB] [ARGUMENTS]",
        "  mpiexec -n 2 python -m mpi4py -m hpc_saidpo [VERB] [ARGUMENTS]   (2 ranks)",
        "",
        "Verbs, each with an example:",
        *lines,
        "",
        OVERRIDES,
        "",
        "  hpc-saidpo VERB --help   the arguments of a verb",
        "  hpc-saidpo run --help    the names of all settings, and of the files to select",
        "  hpc-saidpo --version     the version",
    ])  # fmt: skip


def run_help(verb: str, description: str | None) -> str:
    """Return the text of `hpc-saidpo run --help` and `evaluate --help`: description, options, groups and keys."""
    named = ("experiment", "sweep", "pool", "policy", "dpo", "rollouts/prompt")
    return "\n".join([
        f"usage: hpc-saidpo {verb} [OPTIONS] [OVERRIDES]",
        "",
        (description or "").strip(),
        "",
        OVERRIDES,
        "",
        "Options, which are those of Hydra:",
        "  -m, --multirun   one run for each combination of values: clusters.n=6,12",
        "  --cfg job        print the configuration instead of running",
        "  --dry-run        check everything, show the plan, and run nothing (only `run`)",
        "",
        "Groups and their settings (GROUP.SETTING=VALUE):",
        *(_wrapped(f"{group:12s}", fields_at([group])) for group in fields_at([])),
        "",
        "Files to select (GROUP=NAME):",
        *(_wrapped(f"{group + '=':12s}", options_of(group)) for group in named),
        "",
        "README.md and the comments in this folder explain every setting:",
        f"  {conf_folder()}",
    ])  # fmt: skip


def _wrapped(name: str, words: list[str]) -> str:
    return textwrap.fill(" ".join(words), WIDTH, initial_indent=f"  {name} ", subsequent_indent=" " * 15)
