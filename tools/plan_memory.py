#!/usr/bin/env python3
"""Does it fit? What a DPO round and the rollouts take of each GPU, part by part, before the job.

    tools/plan_memory.py Qwen2.5-7B --gpus 8 --gpu-gib 80
    tools/plan_memory.py Qwen2.5-7B Llama-3.1-8B Qwen2.5-32B --gpus 8
    tools/plan_memory.py --gpus 4 experiment=paper_qwen7b policy.path=/models/Qwen2.5-Math-7B pool.path=- dpo.epochs=2
    tools/plan_memory.py --check

A model is one of the names above, a folder with a config.json, or the policy.path of a run's overrides; of several, or
with --brief, there is a line for each in place of its tables. Needs no GPU, no weights, no network. Overrides count as
they would in a run, but for what the tables vary: dpo.checkpointing, dpo.lora.rank (that of dpo=lora, if the run has
none), and how the ranks share the work.

--check runs real DPO steps of a small model here, each case in processes of its own, and sets the peak of their memory
beside what is planned. Exits 0 when something fits (--check: when all cases are within the tolerance), 1 when nothing
does, 2 on a wrong command.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPIR_CVAR_ENABLE_HEAVY_YIELD", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from pydantic import ValidationError
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.doctor import memory
from hpc_saidpo.doctor.memory import GIB
from hpc_saidpo.dpo import train
from hpc_saidpo.dpo.examples import Examples
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.policy import attention
from hpc_saidpo.records import Pairs

# From the models' own config.json: what memory depends on.
KNOWN = {
    "Qwen2.5-7B": {
        "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
        "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False,
    },
    "Llama-3.1-8B": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": False,
    },
    "Qwen2.5-32B": {
        "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
        "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8, "tie_word_embeddings": False,
    },
}  # fmt: skip
STRATEGIES = ("single", "ddp", "fsdp")
TOLERANCE = 0.25  # of --check
SMALL = LlamaConfig(
    vocab_size=8192, hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8,
    num_key_value_heads=4, bos_token_id=None, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
)  # fmt: skip
PROMPT, RESPONSE = 64, 64  # tokens, of --check
CASES = {
    "all weights": (1, []),
    "checkpointing": (1, ["dpo.checkpointing=true"]),
    "long responses": (1, ["rollouts.max_new_tokens=256"]),
    "bfloat16": (1, ["policy.precision=bfloat16"]),
    "adamw_8bit": (1, ["dpo.optimizer=adamw_8bit"]),
    "deterministic": (1, ["run.deterministic=true"]),
    "LoRA": (1, ["dpo.lora.rank=8"]),
    "LoRA, checkpointing": (1, ["dpo.lora.rank=8", "dpo.checkpointing=true"]),
    "ddp, 2 ranks": (2, []),
    "fsdp, 2 ranks": (2, ["dpo.strategy=fsdp"]),
}  # name: ranks, overrides


@dataclass(frozen=True)
class Plan:
    """One way to train: its settings, its parts in bytes, and those of the rollouts."""

    dpo: settings.Dpo
    training: dict[str, float]
    rollouts: dict[str, float]

    @property
    def is_lora(self) -> bool:
        return self.dpo.lora.rank is not None

    @property
    def peak_gib(self) -> float:
        return max(sum(self.training.values()), sum(self.rollouts.values())) / GIB


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="MODEL or OVERRIDE", help=f"{', '.join(KNOWN)}; a path; key=value")
    parser.add_argument("--gpus", type=int, default=8, help="how many share the training (default: 8)")
    parser.add_argument("--gpu-gib", type=float, default=80.0, help="memory of each (default: 80)")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="tokens of a prompt (default: 256)")
    parser.add_argument("--brief", action="store_true", help="a line for each model")
    parser.add_argument("--check", nargs="*", metavar="CASE", help="compare with real steps, here; all cases, or these")
    parser.add_argument("--peak-of", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_intermixed_args(words)
    try:
        if asked.peak_of is not None:
            return show_peak(asked.peak_of)
        if asked.check is not None:
            return check(asked.check)
        return plan(asked)
    except RunError as error:
        print(error, file=sys.stderr)
        return 2


def plan(asked) -> int:
    overrides = [word for word in asked.words if "=" in word]
    names = [word for word in asked.words if "=" not in word]
    plans = {}
    for name in names or [None]:
        config = run_config(name, overrides)
        plans[name or config.policy.path] = plans_of(model_called(config.policy.path), config, asked)
    if len(plans) > 1 or asked.brief:
        print(brief_table(plans, asked))
    else:
        (name, found), = plans.items()  # fmt: skip
        print(f"{name}: GiB on each of {asked.gpus} GPUs; {sizes_told(config, asked)}\n")
        print("\n\n".join(tables(found, asked.gpu_gib)))
    for name, found in plans.items():
        print(f"\n{name}: {advice(found, asked.gpu_gib, asked.gpus)}")
    return int(all(p.peak_gib > asked.gpu_gib for found in plans.values() for p in found))


def run_config(name: str | None, overrides: list[str]):
    """The configuration of a run with this model; what a plan does not depend on need not be given."""
    given = [f"policy.path={name}"] if name else []
    keys = {word.split("=")[0] for word in [*given, *overrides]}
    if "policy.path" not in keys and "experiment" not in keys:
        raise RunError(f"no model: name one of {', '.join(KNOWN)}, a folder with a config.json, or policy.path=...")
    pool = [] if keys & {"pool.path", "pool", "experiment"} else ["pool.path=-"]
    return compose.from_overrides([*pool, *overrides, *given])


def model_called(path: str) -> memory.Model:
    if path in KNOWN:
        return memory.model_of(AutoConfig.for_model(**KNOWN[path]))
    try:
        return memory.model_at(path)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"{path}: no model's configuration there ({error}): name {', '.join(KNOWN)}, or a folder"
        ) from None


def plans_of(model: memory.Model, config, asked) -> list[Plan]:
    """The ways to train that the run's other settings permit, the most wanted first."""
    n_bytes = 4 if config.policy.precision == "float32" else 2
    rank = config.dpo.lora.rank or compose.from_overrides(["experiment=tiny", "dpo=lora"]).dpo.lora.rank
    found = []
    for lora, strategy, checkpointing in itertools.product((None, rank), STRATEGIES, (False, True)):
        adapters = dataclasses.replace(config.dpo.lora, rank=lora)
        changed = {"strategy": strategy, "lora": adapters, "checkpointing": checkpointing}
        try:
            whole = dataclasses.replace(config, dpo=dataclasses.replace(config.dpo, **changed))
        except ValidationError:
            continue
        parts = memory.training(model, whole, asked.prompt_tokens, asked.gpus, n_bytes)
        found.append(Plan(whole.dpo, parts, memory.rollouts(model, whole, asked.prompt_tokens, n_bytes)))
    return found


def sizes_told(config, asked) -> str:
    size = f"tokens: {asked.prompt_tokens} of a prompt, 2 × {config.rollouts.max_new_tokens} of its responses"
    return f"{size}, {memory.micro_batch_tokens(config, asked.prompt_tokens):,} of a micro-batch"


def tables(found: list[Plan], gpu_gib: float) -> Iterator[str]:
    """A table for each strategy, and one of the rollouts."""
    for strategy in dict.fromkeys(p.dpo.strategy for p in found):
        own = [p for p in found if p.dpo.strategy == strategy]
        shown = [part for part in own[0].training if any(p.training[part] for p in own)]
        rows = [["LoRA", "checkpointing", *shown, "training", "fits"]]
        for p in own:
            parts, whole = [gib(p.training[part]) for part in shown], sum(p.training.values())
            told = [str(p.dpo.lora.rank or "-"), "yes" if p.dpo.checkpointing else "-"]
            rows.append([*told, *parts, gib(whole), "yes" if whole / GIB <= gpu_gib else "no"])
        yield f"{strategy}\n" + markdown(rows)
    parts = found[0].rollouts
    whole = sum(parts.values())
    cells = [*map(gib, [*parts.values(), whole]), "yes" if whole / GIB <= gpu_gib else "no"]
    yield "whatever the strategy\n" + markdown([[*parts, "rollouts", "fits"], cells])


def brief_table(plans: dict[str, list[Plan]], asked) -> str:
    """Training's GiB on each GPU with and without checkpointing, by model and strategy."""
    ways = [(lora, strategy) for lora in (False, True) for strategy in STRATEGIES]
    rows = [["model", *(f"{strategy}{', LoRA' * lora}" for lora, strategy in ways), "rollouts"]]
    for name, found in plans.items():
        cells = []
        for lora, strategy in ways:
            own = [p for p in found if p.dpo.strategy == strategy and p.is_lora == lora]
            cells.append(", ".join(gib(sum(p.training.values()), digits=0) for p in own) or "-")
        rows.append([name, *cells, gib(sum(found[0].rollouts.values()), digits=0)])
    return markdown(rows)


def advice(found: list[Plan], gpu_gib: float, n_gpus: int) -> str:
    """What to set, or why nothing helps."""
    decoding, whole = sum(found[0].rollouts.values()) / GIB, found[0].rollouts["keys and values"] / GIB
    if decoding - whole > gpu_gib:
        return (
            f"does not fit: for rollouts every GPU holds the whole policy in float32 and a copy of it, "
            f"{decoding - whole:.0f} of {gpu_gib:g} GiB: larger GPUs, or a smaller model"
        )
    if decoding > gpu_gib:
        return f"the rollouts do not fit ({decoding:.0f} of {gpu_gib:g} GiB): lower rollouts.generate.rows"
    wanted = ("single",) if n_gpus == 1 else ("ddp", "fsdp")
    for p in found:
        if p.dpo.strategy in wanted and p.peak_gib <= gpu_gib:
            words = [f"dpo.strategy={p.dpo.strategy}"] * (n_gpus > 1) + [f"dpo.lora.rank={p.dpo.lora.rank}"] * p.is_lora
            words += [f"dpo.checkpointing={str(p.dpo.checkpointing).lower()}"]
            training = sum(p.training.values()) / GIB
            return f"{' '.join(words)}: training {training:.1f}, rollouts {decoding:.1f} of {gpu_gib:g} GiB"
    return "training does not fit: more GPUs with dpo.strategy=fsdp, a lower dpo.micro_pairs or rollouts.max_new_tokens"


def gib(n_bytes: float, digits: int = 1) -> str:
    return f"{n_bytes / GIB:.{digits}f}"


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.rjust, row, widths)) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("-" * (w - 1) + ":" for w in widths) + " |", *lines[1:]])


def check(names: list[str]) -> int:
    unknown = sorted(set(names) - set(CASES))
    if unknown:
        raise RunError(f"--check: no case {', '.join(unknown)}: there are {', '.join(CASES)}")
    rows, worst = [["case", "planned MiB", "measured MiB", "measured / planned"]], 0.0
    for name in names or CASES:
        ranks, overrides = CASES[name]
        config = small_config(overrides)
        n_bytes = attention.precision_of(config.policy, torch.device("cpu")).itemsize
        planned = sum(memory.training(memory.model_of(SMALL), config, PROMPT, ranks, n_bytes).values())
        measured = peak_of(ranks, overrides)
        worst = max(worst, abs(measured / planned - 1))
        rows.append([name, f"{planned / 2**20:.0f}", f"{measured / 2**20:.0f}", f"{measured / planned:.2f}"])
    print(markdown(rows))
    print(f"\nfarthest from what is planned: {worst:.0%}; tolerance {TOLERANCE:.0%}")
    return int(worst > TOLERANCE)


def small_config(overrides: list[str]):
    given = ["dpo.micro_pairs=2", "dpo.batch_pairs=4", "dpo.head_tokens=128", f"rollouts.max_new_tokens={RESPONSE}"]
    return compose.from_overrides(["experiment=tiny", "run.deterministic=false", *given, *overrides])


def peak_of(ranks: int, overrides: list[str]) -> int:
    """Bytes that a round takes at its peak, of the rank that takes most, in processes of their own."""
    launch = [mpiexec(), "-n", str(ranks)] if ranks > 1 else []
    line = [*launch, sys.executable, *["-m", "mpi4py"] * (ranks > 1), __file__, "--peak-of", *overrides]
    # Of freed memory glibc would keep as much as the largest piece that was ever freed, up to 32 MiB.
    own = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, env=own)
    if done.returncode != 0:
        raise RunError(f"measuring {overrides} on {ranks} ranks failed:\n{done.stderr}")
    return int(done.stdout.split()[-1])


def mpiexec() -> str:
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if not found:
        raise RunError("--check: no mpiexec for the cases of several ranks: name the others")
    return found


def show_peak(overrides: list[str]) -> int:
    """Train the small model, and print what it took beyond what the process had before."""
    world, config = connect(), small_config(overrides)
    tiny = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    train(tiny, config, world)  # what is loaded and made once
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = status_bytes("VmRSS")
    train(SMALL, config, world)
    peaks = world.gather(status_bytes("VmHWM") - before)
    if world.is_root:
        print(max(peaks))
    return 0


def train(model: LlamaConfig, config, world) -> None:
    """Two steps of two micro-batches, on random tokens, all responses of full length."""
    n, rng = 2 * config.dpo.batch_pairs, np.random.default_rng(0)
    length = config.rollouts.max_new_tokens
    prompt, chosen, rejected = (rng.integers(2, 64, (n, t)).tolist() for t in (PROMPT, length, length))
    pairs = Pairs.of([(i, 0, 0, 1, True, True, 0, 0.5, 1.0, 1.0, str(i), "", "", "") for i in range(n)])
    built = AutoModelForCausalLM.from_config(model, attn_implementation="sdpa").eval()
    device = torch.device("cpu")
    own = model.Policy(built, None, device, attention.precision_of(config.policy, device), "random weights")
    examples = Examples(prompt, chosen, rejected)
    train.train(own, pairs, examples, config.dpo, world, 0, 0, config.run.deterministic, silent)


@contextmanager
def silent(label: str, total: int):
    yield lambda *_: None


def status_bytes(key: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status[key].split()[0])


if __name__ == "__main__":
    sys.exit(main())
