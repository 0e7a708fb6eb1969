"""The systems of bench_claim on a real language model: runs of the program itself with SmolLM2-135M.

The pool is reasoning-gym's: 4,000 questions, of which 85 % are far too hard for the model (three and four digits,
signed sums), 10 % in its range, 5 % far too easy (`TASKS` has its pass rates). Prompts with two examples; clusters and
loss are the demo's. Behind a probe, which is the same for all, each iteration explores until its tokens are spent
(sampler.budget.tokens).

Held-out questions are of each part of the pool, apart; the accuracy on everything is the mean of the parts in the
pool's proportions. No question of the pool asks for an expression of theirs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from claim_trials import HOME, Setup, Trial

from hpc_saidpo import settings
from hpc_saidpo.pool import generated
from hpc_saidpo.records import Rollouts
from hpc_saidpo.store.stage import Stage

ROOT = HOME / "runs" / "claim" / "smollm2"  # runs that are going on: a killed one is resumed
SETUP = Setup(iterations=4, tokens=5_000, probe=80, held_out=200, samples=4, curve_samples=4)
QUICK = Setup(iterations=1, tokens=200, probe=20, held_out=10, samples=1, curve_samples=1)
EXAMPLES = 2  # few-shot examples of a prompt
DRAWN_QUESTIONS = 320  # of an iteration, at most: more than the tokens allow
HARD, BAND, EASY = "hard", "band", "easy"
# Shares of the held-out questions. One-digit tasks have few expressions, and one in seven is held out: 120 of the band.
HELD_OUT = {HARD: 0.3, BAND: 0.6, EASY: 0.1}


def _sums(digits: tuple[int, int], operators: str, signed: bool = False, terms: int = 2, style: str = "simple") -> dict:
    return {
        "min_terms": terms, "max_terms": terms, "min_digits": digits[0], "max_digits": digits[1],
        "operators": list(operators), "allow_parentheses": signed, "allow_negation": False, "format_style": style,
    }  # fmt: skip


def _terms(digits: tuple[int, int], terms: tuple[int, int] = (2, 2)) -> dict:
    return {
        "min_terms": terms[0], "max_terms": terms[1], "min_digits": digits[0], "max_digits": digits[1],
    }  # fmt: skip


NATURAL_1D = {"digits": (1, 1), "style": "natural"}
SOLVED = {
    "min_terms": 1, "max_terms": 1, "min_value": 1, "max_value": 99, "operators": ["+", "-"],
    "operators_weights": [0.5, 0.5],
}  # fmt: skip
# (part, name, task, parameters, knowledge points, questions). Pass rates before training, as conf/pool/demo.yaml has
# them: chain_34d 0.01, prod_34d 0.00; add_1d 0.58, mul_1d 0.51, chain_1d 0.56, prod_1d 0.35, gcd_12 0.28;
# read_number 0.92, eq_solved 0.88.
TASKS = (
    (HARD, "chain_34d", "chain_sum", _terms((3, 4)), ("addition", "subtraction", "large numbers"), 700),
    (HARD, "chain_34d_long", "chain_sum", _terms((3, 4), (3, 4)), ("addition", "long sums", "large numbers"), 700),
    (HARD, "prod_34d", "products", _terms((3, 4)), ("multiplication", "large numbers"), 700),
    (HARD, "add_34d", "basic_arithmetic", _sums((3, 4), "+"), ("addition", "large numbers"), 650),
    (HARD, "signed_34d", "basic_arithmetic", _sums((3, 4), "+-", True), ("negative numbers", "large numbers"), 650),
    (BAND, "add_1d", "basic_arithmetic", _sums(operators="+", **NATURAL_1D), ("addition", "one-digit numbers"), 100),
    (BAND, "mul_1d", "basic_arithmetic", _sums(operators="*", **NATURAL_1D), ("multiplication", "one-digit"), 100),
    (BAND, "chain_1d", "chain_sum", _terms((1, 1)), ("addition", "subtraction", "one-digit numbers"), 80),
    (BAND, "prod_1d", "products", _terms((1, 1)), ("multiplication", "times tables"), 60),
    (BAND, "gcd_12", "gcd", {"min_value": 1, "max_value": 12}, ("greatest common divisor", "divisibility"), 60),
    (EASY, "read_number", "basic_arithmetic", _sums((2, 3), "+", terms=1), ("reading numbers", "place value"), 100),
    (EASY, "eq_solved", "simple_equations", SOLVED, ("linear equations", "reading numbers"), 100),
)


def tasks(parts: tuple[str, ...] = (HARD, BAND, EASY), n: int | None = None) -> list[settings.Task]:
    """The settings of the pool's tasks: those of some parts, each with its number of questions or with n."""
    return [
        settings.Task(name=name, task=task, params=params, tags=tags, n=n or size)
        for part, name, task, params, tags, size in TASKS
        if part in parts
    ]


def play(trial: Trial) -> list[dict]:
    """One record per iteration, and one of the first policy before them.

    Raises:
        SystemExit: the run failed; the message is what it printed.
    """
    name = trial.path.stem
    questions = ROOT / f"{name}-questions"
    write_held_out(questions, trial)
    words = list(overrides_of(trial, name, questions))
    mpiexec = Path(sys.executable).parent / "mpiexec"
    line = [mpiexec if mpiexec.exists() else "mpiexec", "-n", "1", sys.executable, "-m", "mpi4py", "-m", "hpc_saidpo"]
    done = subprocess.run([*map(str, line), *words], cwd=HOME, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
    records = list(records_of(ROOT / name))
    shutil.rmtree(ROOT / name)
    shutil.rmtree(questions)
    return records


def write_held_out(folder: Path, trial: Trial) -> None:
    """Write the held-out questions of each part of the pool, as JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, share in HELD_OUT.items():
        n = round(share * trial.setup.held_out)
        config = settings.ReasoningGym(settings=tuple(tasks((part,), 1)), held_out=n, seed=trial.seed)
        rows = [
            {"id": f"{part}-{i}", "question": q.text, "answer": q.answer, "subject": q.subject}
            for i, q in enumerate(generated.make(config).held_out)
        ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def overrides_of(trial: Trial, name: str, held_out: Path) -> Iterator[str]:
    """The command line of a trial's run."""
    setup, training = trial.setup, trial.training
    pool = [
        {"name": task.name, "task": task.task, "params": task.params, "tags": list(task.tags), "n": task.n}
        for task in tasks()
    ]
    values = {
        "run.root": ROOT, "run.name": name, "run.seed": trial.seed, "run.threads": 1,
        "loop.iterations": setup.iterations, "pool.examples": EXAMPLES, "rollouts.prompt.shots": EXAMPLES,
        "pool.seed": trial.seed, "pool.held_out": 0, "pool.settings": _hydra(pool),
        "probe.fraction": setup.probe / sum(task.n for task in tasks()), "clusters.seed": trial.seed,
        "sampler.n_questions": DRAWN_QUESTIONS, "sampler.budget.tokens": setup.tokens,
        "dpo.lr": training.lr, "dpo.epochs": training.epochs, "dpo.batch_pairs": training.batch_pairs,
        "evaluate.samples": setup.samples, "evaluate.every": 1 if setup.curve_samples else setup.iterations,
        "evaluate.benchmarks": _hydra([str(held_out / f"{part}.jsonl") for part in HELD_OUT]),
    }  # fmt: skip
    names = ",".join(["demo", *filter(None, [trial.experiment])])
    yield f"experiment=[{names}]"
    yield from (f"{key}={value}" for key, value in values.items())
    yield from trial.overrides


def _hydra(value: object) -> str:
    """A list of plain values as a word of Hydra's command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def records_of(run: Path) -> Iterator[dict]:
    """Yield the records of a finished run.

    The tokens of a record are those of the probe and of the exploration together. Its accuracy is the one on the
    held-out questions in the model's range (`BAND`).
    """
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    yield {"tokens": 0, **_accuracies(lines[0]["scores_before"])}
    explored: set[int] = set()
    for t, line in enumerate(lines):
        tables = [Stage(run / f"iter-{t:03d}" / stage).read_chunks(Rollouts) for stage in ("probe", "explore")]
        explored |= set(tables[1].question_R.tolist())
        yield {
            "tokens": sum(int(table.n_tokens_R.sum()) for table in tables),
            "probe_tokens": int(tables[0].n_tokens_R.sum()),
            "explored": line["explored_questions"],
            "usable": round(line["pair_yield"] * line["explored_questions"]),
            "pairs": line["pairs"],
            "distinct": len(explored),
            **(_accuracies(line["scores"]) if line["scores"] else {}),
        }


def _accuracies(scores: dict) -> dict[str, float]:
    sizes = {part: sum(task.n for task in tasks((part,))) for part in HELD_OUT}
    whole = sum(scores[part]["accuracy"] * size for part, size in sizes.items()) / sum(sizes.values())
    return {"accuracy": scores[BAND]["accuracy"], "everything": whole}
