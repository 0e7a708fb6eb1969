#!/usr/bin/env python3
"""Examine every causal language model of transformers: is it sampled and trained as its own forward pass computes it?

    tools/bench/bench_models.py --quick
    tools/bench/bench_models.py --json bench.json

Each architecture is built as a tiny model with random weights, large enough that mistakes show. The try-out chooses the
ways to decode and to train it, as in a run. Then, without the try-out: recorded log-probabilities and greedy tokens are
compared with plain forward passes (one row, no cache), with and without a common start of the prompts; values and
gradients of pairs with rows one at a time; a saved and reloaded model with the original, bit for bit. Encoders are left
out, and the models that `tests/support/every_model.py` lists with a reason.

A model is `right`, or `refused` by the try-out (one message that says what to do), or `wrong`: something differs, or
`crashed`. The last two must be 0. Then the demo explores once (--run names a finished run instead): is what DPO would
train what was drawn, and what do the stored token ids cost on disk? --quick: one architecture of each kind, those of
tests/slow/test_architectures.py, and the tiny model in place of the demo's.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import common

common.start(threads=1)
sys.path.insert(0, str(common.HOME / "tests"))

import stored_tokens
import torch
import transformers
from support.every_model import KINDS, LEFT_OUT, model_of, names, shrunk
from support.make import load_micro
from support.rightness import examine

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy.gguf import convert_gguf
from hpc_saidpo.policy.locate import is_gguf, locate
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.store.stage import Stage

RIGHT, REFUSED, WRONG, CRASHED = "right", "refused", "wrong", "crashed"


@dataclass(frozen=True)
class Result:
    """What was seen of one architecture: its state, the ways or the reason, CPU-seconds."""

    name: str
    state: str
    text: str
    cpu_s: float


def main() -> int:
    parser = common.parser(__doc__, "one architecture of each kind")
    parser.add_argument("--run", type=Path, help="a run folder of experiment=demo that has explored")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    micro = load_micro()
    results = []
    for name in list(KINDS) if arguments.quick else names():
        seconds, (state, text) = common.cpu_s(lambda name=name: examined(name, micro))
        results.append(Result(name, state, text, seconds))
        print(f"{name:24}{state:9}{seconds:6.1f} s  {text}", flush=True)
    figures = summary(results)
    with tempfile.TemporaryDirectory() as root:
        experiment = "tiny" if arguments.quick else "demo"
        run = arguments.run or explored(experiment, Path(root))
        figures |= of_tokens(Stage(run / "iter-000" / "explore"), experiment, Path(root))
    common.show_figures(figures)
    common.write_figures(figures, arguments)
    return int(bool(figures[WRONG] or figures[CRASHED]))


def examined(name: str, micro: Policy) -> tuple[str, str]:
    """The state of an architecture, and the ways that were taken or the reason."""
    try:
        model = model_of(shrunk(transformers.CONFIG_MAPPING[name]()))
        policy = Policy(model, micro.tokenizer, torch.device("cpu"), torch.float32, name)
        with tempfile.TemporaryDirectory() as folder:
            found = examine(policy, Path(folder))
    except RunError as error:
        return REFUSED, str(error).splitlines()[0]
    except AssertionError as error:
        return WRONG, str(error)
    except Exception as error:  # noqa: BLE001 - it is counted, and the others are still examined
        traceback.print_exc()
        return CRASHED, f"{type(error).__name__}: {error}"
    return RIGHT, f"rollouts {found.engine}, training {found.arrangement}, {found.nats_a_token:.0e} nats a token"


def summary(results: Sequence[Result]) -> dict[str, float]:
    """The figures, and a table of the ways that were taken."""
    print("\nways taken:")
    taken = Counter(result.text.rpartition(",")[0] for result in results if result.state == RIGHT)
    for ways, n in taken.most_common():
        print(f"{n:6}  {ways}")
    print(f"left out: {', '.join(LEFT_OUT)}")
    states = Counter(result.state for result in results)
    return {
        "architectures": len(results),
        **{state: states[state] for state in (RIGHT, REFUSED, WRONG, CRASHED)},
        "cpu_s": sum(result.cpu_s for result in results),
    }


def explored(experiment: str, root: Path) -> Path:
    """A run of an experiment that ends after its first exploration."""
    overrides = [f"experiment={experiment}", f"run.root={root}", "run.name=run", "loop.stop_after=explore"]
    line = [sys.executable, "-m", "hpc_saidpo", *overrides, "evaluate.benchmarks=[]"]
    done = subprocess.run(line, cwd=common.HOME, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"the run that explores failed:\n{done.stdout}{done.stderr}")
    return root / "run"


def of_tokens(stage: Stage, experiment: str, folder: Path) -> dict[str, float]:
    """Bytes per row with and without token ids, and the share of responses that DPO trains as they were drawn."""
    config = compose.from_overrides([f"experiment={experiment}"])
    path = locate(config.policy.path)
    if is_gguf(path):
        convert_gguf(path, folder / "model")
        path = str(folder / "model")
    policy = Policy.load(path, settings.Policy(path=path), torch.device("cpu"))
    rollouts = config.rollouts
    trained = stored_tokens.trained_as_drawn(stage, policy, rollouts.prompt.chat, rollouts.stop)
    return {**trained, **stored_tokens.bytes_per_row(stage)}


if __name__ == "__main__":
    sys.exit(main())
