"""Estimate the memory of each GPU before the job: a DPO round, the rollouts.

    hpc-saidpo plan Qwen2.5-7B --gpus 8 --gpu-gib 80
    hpc-saidpo plan Qwen2.5-7B Llama-3.1-8B Qwen2.5-32B --gpus 8
    hpc-saidpo plan --gpus 4 experiment=paper_qwen7b pool.path=- dpo.epochs=2 \\
        policy.path=/models/Qwen2.5-Math-7B

A model is one of the names above, a folder with a config.json, or the
policy.path of a run's overrides. The output has the memory of each part, in
GiB; for several models, or with --brief, one line for each model. The command
needs no GPU, no weights and no network.

Overrides have the same meaning as in a run. The tables vary dpo.strategy,
dpo.checkpointing and dpo.lora.rank (the rank of dpo=lora, if the run has none).

Exits 0 when at least one way to train fits into the memory of a GPU, 1 when
none fits, 2 on a wrong command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..doctor.known_models import KNOWN_MODELS
from ..errors import RunError
from ..terminal import complain
from .help import parser

if TYPE_CHECKING:
    from ..settings.whole import Settings


def main(arguments: Sequence[str]) -> int:
    """Print the plans of every model. Returns the exit code."""
    requested = parse(arguments)
    try:
        return plan(requested)
    except RunError as error:
        complain("plan", error)
        return 2


@dataclass(frozen=True)
class Request:
    """The arguments of the command.

    Attributes:
        models: names or paths; empty when policy.path names the model.
        prompt_tokens: tokens of a prompt.
    """

    models: list[str]
    overrides: list[str]
    gpus: int
    gpu_gib: float
    prompt_tokens: int
    is_brief: bool


def parse(arguments: Sequence[str]) -> Request:
    """Parse the command line; exits with 2 when it is wrong."""
    options = parser("plan", __doc__)
    options.add_argument(
        "words", nargs="*", metavar="MODEL or OVERRIDE", help=f"{', '.join(KNOWN_MODELS)}; a path; KEY=VALUE"
    )
    options.add_argument("--gpus", type=int, default=8, help="number of GPUs that share the training (default: 8)")
    options.add_argument("--gpu-gib", type=float, default=80.0, help="memory of each GPU in GiB (default: 80)")
    options.add_argument("--prompt-tokens", type=int, default=256, help="tokens of a prompt (default: 256)")
    options.add_argument("--brief", action="store_true", help="one line for each model")
    values = options.parse_intermixed_args(arguments)
    return Request(
        [word for word in values.words if "=" not in word],
        [word for word in values.words if "=" in word],
        values.gpus, values.gpu_gib, values.prompt_tokens, values.brief,
    )  # fmt: skip


def plan(requested: Request) -> int:
    """Print tables or lines, and an advice for each model. Returns 0 when some plan fits, else 1.

    Raises:
        RunError: an override is wrong, or there is no such model.
    """
    from .compose import from_overrides  # imports Hydra, which help does not need

    configs = {}
    for name in requested.models or [None]:
        config = run_config(name, requested.overrides)
        configs[name or config.policy.path] = config
    lora_rank = from_overrides(["experiment=tiny", "dpo=lora"]).dpo.lora.rank
    # torch and transformers take seconds to import: a wrong override is reported before that.
    from ..doctor import plan_memory

    gpus = plan_memory.Gpus(requested.gpus, requested.gpu_gib)
    plans = {}
    for name, config in configs.items():
        model, rank = plan_memory.model_called(config.policy.path), config.dpo.lora.rank or lora_rank
        plans[name] = plan_memory.plans_of(model, config, requested.prompt_tokens, gpus.n, rank)
    if len(plans) > 1 or requested.is_brief:
        print(plan_memory.brief_table(plans))
    else:
        ((name, of_model),) = plans.items()
        sizes = plan_memory.describe_sizes(configs[name], requested.prompt_tokens)
        print(f"{name}: GiB on each of {gpus.n} GPUs; {sizes}\n")
        print("\n\n".join(plan_memory.tables(of_model, gpus.gib)))
    for name, of_model in plans.items():
        print(f"\n{name}: {plan_memory.advice(of_model, gpus)}")
    return int(all(p.peak_gib > gpus.gib for of_model in plans.values() for p in of_model))


def run_config(name: str | None, overrides: Sequence[str]) -> Settings:
    """Compose the configuration of a run with this model; settings without influence on memory may be left out.

    Args:
        name: the model; None: the overrides name it.

    Raises:
        RunError: an override is wrong, or nothing names a model.
    """
    model = [f"policy.path={name}"] if name else []
    keys = {word.split("=")[0] for word in [*model, *overrides]}
    if "policy.path" not in keys and "experiment" not in keys:
        names = ", ".join(KNOWN_MODELS)
        raise RunError(f"no model: name one of {names}, a folder with a config.json, or policy.path=...")
    from .compose import from_overrides

    pool = [] if keys & {"pool.path", "pool", "experiment"} else ["pool.path=-"]
    return from_overrides([*pool, *overrides, *model])
