"""The trials of bench_claim: what each is, the name of its file, and the code that its result depends on.

A finished trial is a small JSON file in tools/bench/results/claim/. Its name ends with a hash of the trial, of the
code that decides what is drawn, paired and learned, of the settings that it uses, and of the first policy. So a
comparison can be made in several sittings, and a trial of other code is never taken for one of this code. Comments,
docstrings and layout do not matter, nor do the engine, the store and the ranks, which change a result by rounding only
(tests hold them to that).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

HOME = Path(__file__).resolve().parents[2]
RESULTS = HOME / "tools" / "bench" / "results" / "claim"
CODE = (
    "hpc_saidpo/sampler/*.py", "hpc_saidpo/difficulty.py", "hpc_saidpo/loop.py", "hpc_saidpo/rollouts/effort.py",
    "hpc_saidpo/rollouts/prompt.py", "hpc_saidpo/dpo/pairs.py", "hpc_saidpo/dpo/loss.py", "hpc_saidpo/dpo/schedule.py",
    "hpc_saidpo/dpo/optimizer.py", "hpc_saidpo/pool/arithmetic.py", "hpc_saidpo/clusters/fit.py",
    "hpc_saidpo/clusters/suggest.py", "tools/bench/claim_lab.py", "tools/bench/claim_words.py",
)  # fmt: skip
CONF = ("sampler", "probe", "difficulty", "pairs", "rollouts", "clusters", "dpo")  # groups that a trial uses
POLICY = HOME / "hpc_saidpo" / "data" / "micro_llama"
POOLS = {  # questions; shares of far too hard ones, of those in the policy's range, of far too easy ones
    "85/10/5": (9_600, (0.85, 0.10, 0.05)),
    "70/15/15": (3_200, (0.70, 0.15, 0.15)),
    "10/50/40": (1_200, (0.10, 0.50, 0.40)),
}


@dataclass(frozen=True)
class Setup:
    """What all systems have in common.

    Attributes:
        tokens: generated in each iteration by every system, probe included.
        probe: probed questions.
        held_out: questions of the evaluation.
        samples: responses to each of them at the end, and of the first policy.
        curve_samples: responses to each of them after the other iterations.
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
        whole = repr((self, code_hash(), conf_hash(self.experiment)))
        name = re.sub(r"\W+", "-", f"{self.pool} {self.system} {self.seed}")
        return RESULTS / f"{name}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}.json"

    def load(self) -> list[dict] | None:
        """Its records; None if it has not been made with this code."""
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))["records"]
        except FileNotFoundError:
            return None

    def keep(self, records: list[dict], cpu_s: float) -> None:
        """Write its records, whole or not at all."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        rounded = [{k: round(v, 5) if isinstance(v, float) else v for k, v in record.items()} for record in records]
        kept = {"trial": asdict(self), "code": code_hash(), "cpu_s": round(cpu_s, 1), "records": rounded}
        new.write_text(json.dumps(kept, separators=(",", ":")) + "\n", encoding="utf-8")
        new.replace(self.path)


@functools.cache
def code_hash() -> str:
    """A hash of the code that a result depends on, and of the first policy."""
    digest = hashlib.sha256((POLICY / "model.safetensors").read_bytes())
    for path in sorted(path for pattern in CODE for path in HOME.glob(pattern) if path.name != "stage.py"):
        digest.update(path.name.encode() + meaning_of(path.read_text(encoding="utf-8")).encode())
    return digest.hexdigest()[:12]


@functools.cache
def conf_hash(experiment: str) -> str:
    """A hash of the settings' files that a trial uses, without their comments."""
    files = [path for group in CONF for path in sorted((HOME / "conf" / group).glob("default.yaml"))]
    files += [HOME / "conf" / "experiment" / f"{name}.yaml" for name in ("tiny", experiment) if name]
    return hashlib.sha256(json.dumps([yaml.safe_load(path.read_text()) for path in files]).encode()).hexdigest()[:12]


def meaning_of(source: str) -> str:
    """A program without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
    return ast.dump(tree)


def missing(trials: Iterable[Trial]) -> list[Trial]:
    """Those of the trials, each once, that have not been made with this code."""
    return [trial for trial in dict.fromkeys(trials) if not trial.path.exists()]
