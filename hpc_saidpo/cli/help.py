"""Help texts of the command line: made without Hydra and without heavy imports."""

from __future__ import annotations

from ..settings.keys import fields_at, options_of

VERBS = {
    "run": ("run SAI-DPO; also without a verb", "hpc-saidpo experiment=tiny"),
    "evaluate": ("evaluate a policy on benchmarks", "hpc-saidpo evaluate policy.path=runs/tiny"),
    "doctor": ("check the nodes, the inputs and the memory before a job", "hpc-saidpo doctor experiment=tiny"),
    "plan": ("estimate the memory of each GPU", "hpc-saidpo plan Qwen2.5-7B --gpus 8"),
    "clusters": ("suggest a number of clusters", "hpc-saidpo clusters experiment=tiny --n 6,12,24"),
    "compare": ("compare many runs", "hpc-saidpo compare runs --by sampler.rule"),
    "explain": ("explain why a question was drawn", "hpc-saidpo explain runs/tiny --iteration 0 --question arithmetic-7"),
    "export": ("write pairs or rollouts as JSON lines or Parquet",
               "hpc-saidpo export runs/tiny --what pairs --format jsonl"),
    "verify": ("check every file of a run against its checksum", "hpc-saidpo verify runs/tiny"),
    "grade": ("grade a file of responses", "hpc-saidpo grade responses.jsonl"),
}  # fmt: skip
OVERRIDES = """An override is KEY=VALUE and changes one setting of a run: sampler.alpha=3, 'evaluate.benchmarks=[math500]'.
GROUP=NAME selects a file of a group: policy=smollm2. experiment=NAME selects a whole set-up. All settings and
their meaning are listed in conf/README.md; `hpc-saidpo run --help` lists their names."""


def overview() -> str:
    """The text of `hpc-saidpo --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}s}  {what}\n  {'':{width}s}    {example}" for verb, (what, example) in VERBS.items()]
    return "\n".join([
        "Self-aware iterative DPO with dynamic sampling (SAI-DPO, arXiv 2505.16176).",
        "",
        "  hpc-saidpo [VERB] [ARGUMENTS]",
        "  mpiexec -n 2 python -m mpi4py -m hpc_saidpo [VERB] [ARGUMENTS]    the same on 2 MPI ranks",
        "",
        "Verbs, each with an example:",
        *lines,
        "",
        OVERRIDES,
        "",
        f"  hpc-saidpo VERB --help   the arguments of a verb\n  hpc-saidpo --version     the version",
    ])  # fmt: skip


def run_help(verb: str, description: str) -> str:
    """The text of `hpc-saidpo run --help` and `evaluate --help`: what it does, then every group and key."""
    groups = [f"  {group:11s} {' '.join(fields_at([group]))}" for group in fields_at([])]
    named = ("experiment", "sweep", "pool", "policy", "dpo", "rollouts/prompt")
    return "\n".join([
        f"hpc-saidpo {verb} [OVERRIDES]: {description.strip()}",
        "",
        OVERRIDES,
        "",
        "Options of Hydra: -m or --multirun (one run for each value: clusters.n=6,12), --cfg job (print the",
        "configuration), -h.",
        "",
        "Groups and their settings (GROUP.SETTING=VALUE):",
        *groups,
        "",
        "Files to select (GROUP=NAME):",
        *(f"  {group}={'|'.join(options_of(group))}" for group in named),
    ])  # fmt: skip
