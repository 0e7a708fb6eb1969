"""Run each GPU path once, on a small model and little data, and compare it with the CPU path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch

from .. import settings
from ..clusters.backends import choose
from ..clusters.fit import first_centres
from ..dpo.arrangement import response_logps
from ..dpo.examples import tokenise
from ..dpo.train import Lesson, train
from ..errors import RunError, words_of
from ..parallel.world import World
from ..policy import locate
from ..policy.model import Policy
from ..records import Pairs
from ..rollouts.engine.engine import generate
from ..rollouts.engine.sampling import Response
from ..settings.rollouts import Sampling
from .finding import FAILURE, OK, Finding, judge

MICRO = "pkg://hpc_saidpo/data/micro_llama"
QUESTIONS = ["12+13=?\n", "7*8=?\n", "45-17=?\n", "6+6=?\n", "81-9=?\n", "3*3=?\n", "20+5=?\n", "9*6=?\n"]
RIGHT, WRONG = "#### 25", "#### 24"
CPU = torch.device("cpu")
# The errors of a failing kernel. Whatever it raises, the other checks must still be made.
FAILURES = (RuntimeError, ValueError, ImportError, OSError, RunError)


class _Quiet(World):
    """One process that shows no progress bar. Every rank checks its own GPU, and one bar per rank would be too many."""

    @property
    def is_root(self) -> bool:
        return False


def check(world: World, compiled: bool = False) -> list[Finding]:
    """Check the GPU of every rank, and report the first failing rank of each check. Collective.

    Args:
        compiled: check torch.compile too (rollouts.generate.compile). This takes a minute and needs a compiler.
    """
    if world.device.type != "cuda":
        return [judge("GPU self-check", "not run: no GPU")]
    everyones = world.gather(compare(world.device, compiled))
    findings = []
    for by_rank in zip(*everyones, strict=True):
        bad = [(rank, f) for rank, f in enumerate(by_rank) if f.state != OK]
        if bad:
            rank, first = bad[0]
            findings.append(Finding(first.name, FAILURE, f"rank {rank}: {first.text}", first.remedy))
        else:
            findings.append(by_rank[0])
    return findings


def compare(device: torch.device, compiled: bool = False) -> list[Finding]:
    """Compare each path on `device` with the CPU in float32. Not collective."""
    paths = {**PATHS, "GPU k-means": kmeans}
    if compiled:
        paths["GPU compiled generation"] = _compiled
    findings = []
    for name, path in paths.items():
        try:
            text, good = path(device)
        except FAILURES as error:
            text, good = words_of(error, with_type=True), False
        remedy = "the GPU path differs from the CPU path: do not trust this node; see software and driver above"
        findings.append(judge(name, text, failure=remedy * (not good)))
    return findings


def _load(
    device: torch.device,
    precision: Literal["float32", "bfloat16"] = "float32",
    attention: Literal["sdpa", "auto"] = "sdpa",
) -> Policy:
    """Load a fresh copy of the shipped micro model."""
    config = settings.Policy(path=MICRO, precision=precision, attention=attention)
    return Policy.load(locate.locate(MICRO), config, device)


def _scores(policy: Policy) -> np.ndarray:
    """Log-probabilities of a right and a wrong response to each question, nats."""
    ids = policy.tokenizer(QUESTIONS, add_special_tokens=False)["input_ids"]
    both = policy.tokenizer([RIGHT, WRONG], add_special_tokens=False)["input_ids"]
    pad_id = cast(int, policy.tokenizer.pad_token_id)  # `Policy.load` sets one where there is none
    with torch.no_grad(), policy.autocast():
        logps = response_logps(policy.model, ids, [both] * len(ids), pad_id)
    return logps.float().cpu().numpy()


def _answers(policy: Policy, engine: settings.Engine) -> list[Response]:
    """Generate two greedy responses to each question; all prompts begin with the same tokens."""
    ids = [policy.encode_prompt("1+1=?\n" + question, chat=False) for question in QUESTIONS]
    made = generate(policy, ids, [[i, i] for i in range(len(ids))], Sampling(0.0, 1.0, 24), engine)
    return [response for row in made for response in row]


def _alike(responses: list[Response], expected: list[Response], reference: str) -> tuple[str, bool]:
    """Compare responses token by token; rounding may change two of them."""
    same = sum(a.tokens == b.tokens for a, b in zip(responses, expected, strict=True))
    return f"greedy: {same} of {len(expected)} responses as {reference}", same >= len(expected) - 2


def _logps(device: torch.device) -> tuple[str, bool]:
    difference = float(np.abs(_scores(_load(device)) - _scores(_load(CPU))).max())
    return f"float32: at most {difference:.1e} nats from the CPU's", difference < 1e-3


def _generation(device: torch.device) -> tuple[str, bool]:
    engine = settings.Engine()
    return _alike(_answers(_load(device), engine), _answers(_load(CPU), engine), "on the CPU")


def _compiled(device: torch.device) -> tuple[str, bool]:
    policy = _load(device)
    compiled = _answers(policy, settings.Engine(compile=True))
    return _alike(compiled, _answers(policy, settings.Engine()), "without torch.compile")


def _engines(device: torch.device) -> tuple[str, bool]:
    """Compare engine `shared`, with the attention kernels of this GPU, with engine `hf` of transformers.

    Rounding may decide between tokens of nearly equal probability, so the log-probabilities are compared.
    """
    policy = _load(device, "bfloat16", "auto")
    kind = policy.model.config._attn_implementation
    ours, theirs = _answers(policy, settings.Engine(engine="shared")), _answers(policy, settings.Engine(engine="hf"))
    text, _ = _alike(ours, theirs, "engine hf's")
    difference = float(np.mean([abs(a.logp - b.logp) for a, b in zip(ours, theirs, strict=True)]))
    return f"{kind}: {text}, {difference:.3f} nats apart", difference < 0.5


def _bfloat16(device: torch.device) -> tuple[str, bool]:
    policy = _load(device, "bfloat16", "auto")
    kind = policy.model.config._attn_implementation
    difference = float(np.abs(_scores(policy) - _scores(_load(CPU))).mean())
    return f"{kind}: {difference:.3f} nats per response from the CPU's float32", difference < 0.5


def _dpo(device: torch.device) -> tuple[str, bool]:
    """Compare the weights after two optimizer steps."""
    pairs = Pairs.from_rows(
        (i, 0, 0, 1, True, True, 0, 0.5, 1, 4, str(i), q, RIGHT, WRONG) for i, q in enumerate(QUESTIONS)
    )
    config = settings.Dpo(lr=1e-4, batch_pairs=4, micro_pairs=2)
    weights, margins = [], []
    for where in (device, CPU):
        policy = _load(where)
        examples = tokenise(pairs, policy, chat=False, stop=())
        steps = train(policy, Lesson(pairs, examples, seed=0, iteration=0), config, _Quiet())
        weights.append(torch.cat([p.detach().flatten().cpu() for p in policy.model.parameters()]))
        margins.append(steps[-1]["rewards/margins"])
    difference = float((weights[0] - weights[1]).abs().max())
    text = f"weights at most {difference:.1e} from the CPU's, margin {margins[0]:+.3f}"
    return text, difference < 2e-4 and margins[0] > 0


def kmeans(device: torch.device) -> tuple[str, bool]:
    """Cluster blobs from the same centres: the labels must equal scikit-learn's, in any order of summation."""
    n, groups = 2000, 20
    rng = np.random.default_rng(0)
    vector_ND = rng.normal(size=(groups, 32))[rng.integers(groups, size=n)] + 0.05 * rng.normal(size=(n, 32))
    vector_ND, weight_N = vector_ND.astype(np.float32), rng.integers(1, 5, n).astype(np.float32)
    centre_CD = first_centres(vector_ND, weight_N, groups, 0)
    backends = ("gpu" if device.type == "cuda" else "cpu", "cpu")
    here, expected = (choose(name, device)[0].fit(vector_ND, weight_N, centre_CD, 0) for name in backends)
    equal = float((here.label_U == expected.label_U).mean())
    ratio = here.inertia(vector_ND, weight_N) / expected.inertia(vector_ND, weight_N)
    text = f"{equal:.1%} of the labels, {ratio:.4f} of the inertia of scikit-learn's"
    return text, equal == 1 and abs(ratio - 1) < 1e-3


# The paths that need torch alone, each compared with the CPU: (figures as text, whether they agree).
PATHS: dict[str, Callable[[torch.device], tuple[str, bool]]] = {
    "GPU log-probabilities": _logps,
    "GPU generation": _generation,
    "GPU bfloat16": _bfloat16,
    "GPU bfloat16 generation": _engines,
    "GPU DPO round": _dpo,
}
