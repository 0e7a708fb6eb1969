"""The trials of bench_claim: what each is, the name of its file, and the code that its result depends on.

A finished trial is a small JSON file in tools/bench/results/claim/. Its name ends with a hash of the pool, the seed,
the settings that it uses, the code that decides what is drawn, paired and learned, and the first policy. So a
comparison can be made in several sittings, and a trial of other code is never taken for one of this code. Comments,
docstrings and layout do not matter, nor do the version of Python, settings that are off, the name of the system, the
engine, the store and the ranks; the last three change a result by rounding only (tests hold them to that). After a
change of that code which changes no result, `claim_again.py --adopt` compares trials and renames the files.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_saidpo.cli import compose
from hpc_saidpo.settings.whole import Settings
from hpc_saidpo.store import files

HOME = Path(__file__).resolve().parents[2]
RESULTS = HOME / "tools" / "bench" / "results" / "claim"
CODE = (
    "hpc_saidpo/sampler/*.py", "hpc_saidpo/difficulty.py", "hpc_saidpo/loop.py", "hpc_saidpo/records.py",
    "hpc_saidpo/rollouts/effort.py", "hpc_saidpo/rollouts/waves.py", "hpc_saidpo/rollouts/prompt.py",
    "hpc_saidpo/rollouts/prompts.py", "hpc_saidpo/rollouts/steps.py", "hpc_saidpo/dpo/pairs.py",
    "hpc_saidpo/dpo/examples.py", "hpc_saidpo/dpo/loss.py", "hpc_saidpo/dpo/logps.py", "hpc_saidpo/dpo/rows.py",
    "hpc_saidpo/dpo/schedule.py", "hpc_saidpo/dpo/optimizer.py", "hpc_saidpo/dpo/train.py",
    "hpc_saidpo/grader/grader.py", "hpc_saidpo/grader/answers/extract.py", "hpc_saidpo/grader/answers/fast.py",
    "hpc_saidpo/pool/arithmetic.py", "hpc_saidpo/pool/expressions.py", "hpc_saidpo/pool/generated.py",
    "tools/bench/claim_lab.py",
)  # fmt: skip
CLUSTERING = (
    "hpc_saidpo/clusters/embed.py", "hpc_saidpo/clusters/fit.py", "hpc_saidpo/clusters/health.py",
    "hpc_saidpo/clusters/suggest.py", "tools/bench/claim_words.py",
)  # fmt: skip
OF_KERNEL = ("tools/bench/claim_kernel.py", "hpc_saidpo/clusters/kernel.py", "hpc_saidpo/clusters/neighbours.py")
OF_SMOLLM2 = ("tools/bench/claim_smollm2.py", "hpc_saidpo/rollouts/rounds.py", "hpc_saidpo/settings/sampler.py")
GROUPS = ("sampler", "difficulty", "pairs", "rollouts", "clusters", "dpo")  # of the settings of a trial
OF_NO_EFFECT = {  # settings that all trials have alike, change the cost of a trial, or are not used by it
    "n_questions", "exclude_iterations", "generate", "grader", "chunk_questions", "min_chunk_questions", "batch",
    "backend", "micro_pairs", "micro_tokens", "head_tokens", "lora", "strategy", "checkpointing", "checkpoint_minutes",
}  # fmt: skip
POLICY = HOME / "hpc_saidpo" / "data" / "micro_llama"
KERNEL = "clusters.kind=kernel"  # a setting of a trial
SMOLLM2 = "SmolLM2"  # the pool and the model of `claim_smollm2`
POOLS = {  # questions; shares of far too hard ones, of those in the policy's range, of far too easy ones
    "85/10/5": (9_600, (0.85, 0.10, 0.05)),
    "70/15/15": (3_200, (0.70, 0.15, 0.15)),
    "10/50/40": (1_200, (0.10, 0.50, 0.40)),
    "85/10/5 small": (480, (0.85, 0.10, 0.05)),  # for --quick
    "70/15/15 small": (480, (0.70, 0.15, 0.15)),
    "10/50/40 small": (480, (0.10, 0.50, 0.40)),
}


@dataclass(frozen=True)
class Setup:
    """What all systems have in common.

    Attributes:
        tokens: generated in each iteration by every system, probe included.
        probe: probed questions.
        held_out: questions of the evaluation.
        samples: responses to each of them at the end, and of the first policy.
        curve_samples: responses to each of them after the other iterations; 0: no evaluation then.
    """

    iterations: int = 6
    tokens: int = 60_000
    probe: int = 200
    held_out: int = 800
    samples: int = 8
    curve_samples: int = 2


@dataclass(frozen=True)
class Training:
    """The settings of DPO rounds that are tuned for each system."""

    lr: float
    epochs: int
    batch_pairs: int

    def __str__(self) -> str:
        return f"lr {self.lr:g}, {self.epochs} epoch{'s' * (self.epochs > 1)}, {self.batch_pairs} pairs a step"


@dataclass(frozen=True)
class Trial:
    """One run of a system.

    Attributes:
        experiment: name of a configuration, or "" for the default values.
        overrides: of further settings.
        seed: decides the pool, its held-out questions, the clusters, every draw and every response.
        clusters: number of K-Means clusters; None: the one that the product suggests.
    """

    pool: str
    system: str
    experiment: str
    seed: int
    training: Training
    setup: Setup
    overrides: tuple[str, ...] = ()
    clusters: int | None = None

    @property
    def path(self) -> Path:
        """The trial's file."""
        known = (self.pool, self.seed, self.training, self.setup, self.clusters)
        base = "demo" if self.pool == SMOLLM2 else "tiny"
        whole = repr((known, code_hash(), self.more_hash, settings_text(self.experiment, self.overrides, base)))
        name = self.pool.replace("/", "-")
        return RESULTS / f"{name}-{self.seed}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}.json"

    @property
    def more_hash(self) -> str:
        """A hash of the code that matters for a part of the trials only."""
        return meaning_hash(OF_SMOLLM2 * (self.pool == SMOLLM2) + OF_KERNEL * (KERNEL in self.overrides))

    def load(self) -> list[dict] | None:
        """Its records; None if it has not been made with this code. Raises: as `read`."""
        return read(self.path)["records"] if self.path.exists() else None

    def keep(self, records: list[dict], cpu_s: float) -> None:
        """Write its records, whole or not at all."""
        write(
            self.path, {"trial": asdict(self), **code_of(self), "cpu_s": round(cpu_s, 1), "records": rounded(records)}
        )


def code_of(trial: Trial) -> dict[str, str]:
    """The hashes of the present code that a trial's file holds."""
    return {"code": code_hash(), "more": trial.more_hash}


def read(path: Path) -> dict:
    """The object in a trial's file.

    Raises:
        SystemExit: it is damaged.
    """
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        trial_of(whole)
        if not all("accuracy" in whole["records"][place] for place in (0, -1)):
            raise ValueError("no accuracy at the end")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        sys.exit(
            f"{path} is damaged ({error}): restore it (`git checkout -- FILE`), or delete it: the trial is made again"
        )
    return whole


def write(path: Path, kept: dict) -> None:
    """Write the file of a trial, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(kept, separators=(",", ":")) + "\n")


def rounded(records: list[dict]) -> list[dict]:
    """The records as they are kept: fractions with five decimals."""
    return [{k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()} for record in records]


@functools.cache
def code_hash() -> str:
    """A hash of the code that every result depends on, and of the first policy."""
    policy = hashlib.sha256((POLICY / "model.safetensors").read_bytes()).hexdigest()
    return hashlib.sha256((policy + meaning_hash(CODE + CLUSTERING)).encode()).hexdigest()[:12]


@functools.cache
def meaning_hash(patterns: tuple[str, ...]) -> str:
    """A hash of what programs mean (`meaning_of`): those of these names or patterns, below the checkout."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in patterns for path in HOME.glob(pattern) if path.name != "stage.py"):
        digest.update(path.name.encode() + meaning_of(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()


def compose_settings(experiment: str, overrides: Iterable[str], base: str = "tiny") -> Settings:
    """The settings of a run of the experiment `base`, changed by another one ("": none) and by overrides."""
    names = ",".join([base, *filter(None, [experiment])])
    return compose.from_overrides([f"experiment=[{names}]", *overrides])


@functools.cache
def settings_text(experiment: str, overrides: tuple[str, ...], base: str = "tiny") -> str:
    """The settings that have an effect on a trial, but for those that are off."""
    whole, usual = compose_settings(experiment, overrides, base), compose_settings("", (), base)
    values = {group: asdict(getattr(whole, group)) for group in GROUPS}
    if values["clusters"]["kind"] == "kmeans":
        del values["clusters"]["kind"], values["clusters"]["neighbours"]
    return repr([(group, _effective(values[group], asdict(getattr(usual, group)))) for group in GROUPS])


def _effective(values: dict, usual: dict) -> dict:
    """The values that are on. A key of `OF_NO_EFFECT` is left out where its value is the usual one."""
    kept = {k: v for k, v in sorted(values.items()) if k not in OF_NO_EFFECT or v != usual.get(k)}
    kept = {k: _effective(v, usual.get(k) or {}) if isinstance(v, dict) else v for k, v in kept.items()}
    return {k: v for k, v in kept.items() if v not in (None, False, 0, (), {}, "")}


def meaning_of(source: str) -> str:
    """A program without comments, docstrings and layout, the same under every version of Python."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        if isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty parts
            node.values = [part for part in node.values if not isinstance(part, ast.Constant) or part.value != ""]
    return _text_of(tree)


def _text_of(node: object) -> str:
    """A syntax tree as text. Empty fields are left out: newer versions of Python add some."""
    if isinstance(node, list):
        return f"[{','.join(map(_text_of, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={_text_of(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
    return f"{type(node).__name__}({','.join(fields)})"


def trial_of(kept: dict) -> Trial:
    """The trial whose file holds this object."""
    values = kept["trial"]
    nested = {"training": Training(**values["training"]), "setup": Setup(**values["setup"])}
    return Trial(**{**values, **nested, "overrides": tuple(values["overrides"])})


def missing(trials: Iterable[Trial]) -> list[Trial]:
    """Those of the trials, each once, that have not been made with this code."""
    return [trial for trial in dict.fromkeys(trials) if not trial.path.exists()]
