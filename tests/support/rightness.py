"""Is a model sampled and trained as its plain forward pass computes it? Compared without the project's own try-out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from hpc_saidpo.dpo.arrangement import try_arrangement
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.rows import lay_out
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.ways import tried_engine
from hpc_saidpo.settings.rollouts import Sampling

NEW_TOKENS, K = 8, 2
NATS = 1e-4  # a token
RELATIVE, ROUNDINGS = 1e-5, 4  # of values and gradients; or so many times the rounding of float32
WEIGHT = torch.tensor([[1.0, -1.0], [0.5, -2.0], [3.0, 1.0]])
Rows = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Ways:
    """The ways that were chosen for a model, and the largest differences that were seen."""

    engine: str
    arrangement: str
    nats_a_token: float
    gradient: float


def plain_logits(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """[T, V] by the class's own forward."""
    return model(input_ids=torch.tensor([list(ids)])).logits[0]


def examine(policy: Policy, folder: Path | None = None) -> Ways:
    """Sample from a model, train it, save it, and compare.

    Args:
        folder: where it is saved; None: it is not.

    Raises:
        AssertionError: something differs; the message says what.
        RunError: the model is refused.
    """
    engine, arrangement = tried_engine(policy, "shared").way, try_arrangement(policy.model).way
    size = policy.model.config.get_text_config().vocab_size
    ids = [int(i) for i in np.random.default_rng(1).integers(5, size, 40)]
    alone = [ids[:9], ids[9:12], ids[12:18]]
    behind_a_start = [[*ids[:7], *rest] for rest in (ids[20:21], ids[21:25], ids[25:27])]
    errors = [_sampled(policy, prompts, t) for prompts in (alone, behind_a_start) for t in (0.0, 1.0)]
    gradient = _trained(policy.model, alone, [(ids[20:26], ids[26:28]), (ids[30:31], ids[31:38]), (ids[4:8], ids[1:5])])
    if folder:
        _saved(policy.model, folder, ids)
    return Ways(engine, arrangement, max(errors), gradient)


def _sampled(policy: Policy, prompts: Sequence[Sequence[int]], temperature: float) -> float:
    """Log-probabilities are the plain ones, and a greedy token is the likeliest one. Returns the largest difference."""
    seeds = [[10 * i + j for j in range(K)] for i in range(len(prompts))]
    rows = generate(policy, prompts, seeds, Sampling(temperature, 1.0, NEW_TOKENS))
    errors = []
    for prompt, row in zip(prompts, rows, strict=True):
        for response in row[: 1 if temperature == 0 else K]:
            with torch.no_grad():
                logits = plain_logits(policy.model, [*prompt, *response.tokens])[len(prompt) - 1 : -1]
            logp = logits.double().log_softmax(-1)
            chosen = logp.gather(1, torch.tensor(response.tokens)[:, None])[:, 0]
            errors.append(abs(float(chosen.sum()) - response.logp) / len(response.tokens))
            if temperature == 0:
                errors.append(float((logp.amax(-1) - chosen).max()))
    assert max(errors) <= NATS, f"temperature {temperature}: {max(errors):.1e} nats a token"
    return max(errors)


def _trained(model: PreTrainedModel, prompts: Rows, responses: Sequence[Rows]) -> float:
    """Values and gradients are those of one row at a time. Returns the relative difference of the gradients."""
    expected, wanted = _one_by_one(model, prompts, responses)
    batch = lay_out(prompts, responses, 4, try_arrangement(model).way)
    ours = ResponseLogps(model, 5)(batch).sum_BR
    got = _gradients(model, ours)
    value = float((ours - expected).detach().norm() / expected.detach().norm())
    assert value <= RELATIVE, f"log-probabilities {value:.1e} off"
    assert got.keys() == wanted.keys(), "other weights are trained"
    relative = _relative(got, wanted)
    if relative > RELATIVE:  # a model may enlarge the rounding of float32
        _, exact = _one_by_one(copy.deepcopy(model).double(), prompts, responses)
        rounding = _relative(wanted, exact)
        assert relative <= ROUNDINGS * rounding, f"gradients {relative:.1e} off, rounding is {rounding:.1e}"
    return relative


def _one_by_one(
    model: PreTrainedModel, prompts: Rows, responses: Sequence[Rows]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Values [B, 2] and gradients, a row for each response."""

    def logp(prompt: Sequence[int], response: Sequence[int]) -> torch.Tensor:
        logps = plain_logits(model, [*prompt, *response])[len(prompt) - 1 : -1].log_softmax(-1)
        return logps.gather(1, torch.tensor(response)[:, None]).sum()

    values = torch.stack([torch.stack([logp(p, r) for r in own]) for p, own in zip(prompts, responses, strict=True)])
    return values, _gradients(model, values)


def _gradients(model: PreTrainedModel, value_BR: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of a weighted sum, by the name of the weight; .grad is None afterwards."""
    model.zero_grad(set_to_none=True)
    (value_BR * WEIGHT).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return gradients


def _relative(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    off = torch.stack([(got[name] - g).norm() for name, g in wanted.items()]).norm()
    return float(off / torch.stack([g.norm() for g in wanted.values()]).norm())


def _saved(model: PreTrainedModel, folder: Path, ids: Sequence[int]) -> None:
    """A reloaded model computes the same, bit for bit."""
    model.save_pretrained(folder)
    kind = model.config.get_text_config()._attn_implementation
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=kind)
    with torch.no_grad():
        assert torch.equal(plain_logits(again, ids), plain_logits(model, ids)), "changed by saving and loading"
