"""Each GPU path once, on a model and data of seconds, compared with the CPU path."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch

from .. import settings
from ..clusters.backends import choose
from ..clusters.fit import first_centres
from ..dpo.examples import tokenise
from ..dpo.logps import response_logps
from ..dpo.train import train
from ..errors import RunError
from ..parallel.world import World
from ..policy import locate, model
from ..records import Pairs
from ..rollouts.engine.engine import generate
from ..rollouts.engine.sampling import Response
from ..settings.rollouts import Sampling
from .finding import FAILURE, OK, Finding, judge

MICRO = "pkg://hpc_saidpo/data/micro_llama"
QUESTIONS = ["12+13=?\n", "7*8=?\n", "45-17=?\n", "6+6=?\n", "81-9=?\n", "3*3=?\n", "20+5=?\n", "9*6=?\n"]
RIGHT, WRONG = "#### 25", "#### 24"
# What comes of a failing kernel: whatever it is, the other checks shall still be made.
FAILURES = (RuntimeError, ValueError, ImportError, OSError, RunError)


def check(world: World, compiled: bool = False) -> list[Finding]:
    """Every rank checks its own GPU; the worst of each check is told. Collective.

    Args:
        compiled: check torch.compile too (rollouts.generate.compile): it takes a minute, and a compiler on the node.
    """
    if world.device.type != "cuda":
        return [judge("GPU self-check", "not run: no GPU")]
    everyones = world.gather(compare(world.device, compiled))
    found = []
    for rank_wise in zip(*everyones, strict=True):
        bad = [(rank, f) for rank, f in enumerate(rank_wise) if f.state != OK]
        if bad:
            rank, worst = bad[0]
            found.append(Finding(worst.name, FAILURE, f"rank {rank}: {worst.told}", worst.remedy))
        else:
            found.append(rank_wise[0])
    return found


def compare(device: torch.device, compiled: bool = False) -> list[Finding]:
    """Each path on `device` against the CPU in float32. Not collective."""
    plan: dict[str, Callable[[torch.device], tuple[str, bool]]] = {
        "GPU log-probabilities": _logps,
        "GPU generation": _generation,
        "GPU bfloat16": _bfloat16,
        "GPU bfloat16 generation": _engines,
        "GPU DPO round": _dpo,
        "GPU k-means": _kmeans,
    }
    if compiled:
        plan["GPU compiled generation"] = _compiled
    found = []
    for name, path in plan.items():
        try:
            told, good = path(device)
        except FAILURES as error:
            told, good = f"{type(error).__name__}: {error}", False
        remedy = "the GPU path differs from the CPU path: do not trust this node; see software and driver above"
        found.append(judge(name, told, failure=remedy * (not good)))
    return found


def _load(device: torch.device, precision: str = "float32", attention: str = "sdpa") -> model.Policy:
    config = settings.Policy(path=MICRO, precision=precision, attention=attention)
    return model.Policy.load(locate.locate(MICRO), config, device)


def _scores(own: model.Policy) -> np.ndarray:
    ids = own.tokenizer(QUESTIONS, add_special_tokens=False)["input_ids"]
    both = own.tokenizer([RIGHT, WRONG], add_special_tokens=False)["input_ids"]
    with torch.no_grad(), own.autocast():
        return response_logps(own.model, ids, [both] * len(ids), own.tokenizer.pad_token_id).float().cpu().numpy()


def _logps(device) -> tuple[str, bool]:
    difference = float(np.abs(_scores(_load(device)) - _scores(_load(torch.device("cpu")))).max())
    return f"float32: at most {difference:.1e} nats from the CPU's", difference < 1e-3


def _answers(own: model.Policy, **settings) -> list[Response]:
    """Greedy responses, two alike to each question, after a start that all questions share."""
    ids = [own.encode_prompt("1+1=?\n" + question, chat=False) for question in QUESTIONS]
    made = generate(own, ids, [[i, i] for i in range(len(ids))], Sampling(0.0, 1.0, 24), settings.Engine(**settings))
    return [response for row in made for response in row]


def _alike(found: list[Response], expected: list[Response], of: str) -> tuple[str, bool]:
    same = sum(a.tokens == b.tokens for a, b in zip(found, expected, strict=True))
    return f"greedy: {same} of {len(expected)} responses as {of}", same >= len(expected) - 2


def _generation(device) -> tuple[str, bool]:
    return _alike(_answers(_load(device)), _answers(_load(torch.device("cpu"))), "on the CPU")


def _compiled(device) -> tuple[str, bool]:
    own = _load(device)
    return _alike(_answers(own, compile=True), _answers(own), "without torch.compile")


def _engines(device) -> tuple[str, bool]:
    """The engine with the kernels that this GPU has, and transformers' own; rounding may decide between near equals."""
    own = _load(device, "bfloat16", "auto")
    kind = own.model.config._attn_implementation
    ours, theirs = (_answers(own, engine=name) for name in ("shared", "hf"))
    told, _ = _alike(ours, theirs, "engine hf's")
    difference = float(np.mean([abs(a.logp - b.logp) for a, b in zip(ours, theirs, strict=True)]))
    return f"{kind}: {told}, {difference:.3f} nats apart", difference < 0.5


def _bfloat16(device) -> tuple[str, bool]:
    own = _load(device, "bfloat16", "auto")
    kind = own.model.config._attn_implementation
    difference = float(np.abs(_scores(own) - _scores(_load(torch.device("cpu")))).mean())
    return f"{kind}: {difference:.3f} nats per response from the CPU's float32", difference < 0.5


def _dpo(device) -> tuple[str, bool]:
    pairs = Pairs.from_rows((i, 0, 0, 1, True, True, 0, 0.5, 1, 4, str(i), q, RIGHT, WRONG) for i, q in enumerate(QUESTIONS))
    config = settings.Dpo(lr=1e-4, batch_pairs=4, micro_pairs=2)
    weights, margins = [], []
    for where in (device, torch.device("cpu")):
        own = _load(where)
        examples = tokenise(pairs, own, chat=False, stop=())
        steps = train(own, pairs, examples, config, World(), 0, 0, False, _silent)
        weights.append(torch.cat([p.detach().flatten().cpu() for p in own.model.parameters()]))
        margins.append(steps[-1]["rewards/margins"])
    difference = float((weights[0] - weights[1]).abs().max())
    return f"weights at most {difference:.1e} from the CPU's, margin {margins[0]:+.3f}", difference < 2e-4 and margins[
        0
    ] > 0


@contextmanager
def _silent(label, total):
    yield lambda *_: None


def _kmeans(device) -> tuple[str, bool]:
    """Blobs from the same centres: the labels are scikit-learn's, whatever the order of the sums."""
    n, groups = 2000, 20
    rng = np.random.default_rng(0)
    vector_ND = rng.normal(size=(groups, 32))[rng.integers(groups, size=n)] + 0.05 * rng.normal(size=(n, 32))
    vector_ND, weight_N = vector_ND.astype(np.float32), rng.integers(1, 5, n).astype(np.float32)
    centre_CD = first_centres(vector_ND, weight_N, groups, 0)
    asked = ("gpu" if device.type == "cuda" else "cpu", "cpu")
    own, known = (choose(name, device)[0].fit(vector_ND, weight_N, centre_CD, 0) for name in asked)
    equal = float((own.label_U == known.label_U).mean())
    ratio = own.inertia(vector_ND, weight_N) / known.inertia(vector_ND, weight_N)
    told = f"{equal:.1%} of the labels, {ratio:.4f} of the inertia of scikit-learn's"
    return told, equal == 1 and abs(ratio - 1) < 1e-3
