"""Preference pairs as token ids, and their reference log-probabilities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from .. import progress, settings
from ..parallel.gradients import Replicas
from ..parallel.world import World
from ..policy.model import Policy
from ..progress import log
from ..records import Pairs
from .arrangement import tried_arrangement
from .logps import Logps
from .rows import Arrangement, lay_out
from .schedule import micro_batches


@dataclass(frozen=True)
class Examples:
    """Tokenised pairs.

    Attributes:
        prompt, chosen, rejected: token ids.
        pad_id: token id of padding.
        arrangement: of prompts and responses in rows (`rows.lay_out`).
    """

    prompt: list[list[int]]
    chosen: list[list[int]]
    rejected: list[list[int]]
    pad_id: int = 0
    arrangement: Arrangement = "shared"

    def __len__(self) -> int:
        return len(self.prompt)

    def logps(self, module: nn.Module, rows: Sequence[int]) -> Logps:
        """Log-probabilities of the chosen and rejected responses of some pairs.

        Args:
            module: a `ResponseLogps`, possibly wrapped.
        """
        both = [(self.chosen[i], self.rejected[i]) for i in rows]
        return module(lay_out([self.prompt[i] for i in rows], both, self.pad_id, self.arrangement))

    @property
    def tokens_B(self) -> np.ndarray:
        """Tokens of each pair that the model reads, without padding."""
        prompt_B, chosen_B, rejected_B = (
            np.array([len(ids) for ids in column]) for column in (self.prompt, self.chosen, self.rejected)
        )
        return (1 if self.arrangement == "shared" else 2) * prompt_B + chosen_B + rejected_B

    @property
    def width_B(self) -> np.ndarray:
        """Places of each pair in the rows of a micro-batch, if it is the longest pair there."""
        longest_B = np.array([max(len(c), len(r)) for c, r in zip(self.chosen, self.rejected, strict=True)])
        prompt_B = np.array([len(ids) for ids in self.prompt])
        return 2 * (prompt_B + longest_B) if self.arrangement in ("padded", "whole") else self.tokens_B


def examples_of(pairs: Pairs, policy: Policy, chat: bool, stop: Sequence[str]) -> Examples:
    """Pairs as examples, with the token ids that the policy read and drew.

    Args:
        chat, stop: rollouts.prompt.chat and rollouts.stop, for pairs of texts alone, which are tokenised.
    """
    ids = pairs.prompt_tokens_B, pairs.chosen_tokens_B, pairs.rejected_tokens_B
    if all(len(row) for column in ids for row in column):
        return _examples(policy, *([row.tolist() for row in column] for column in ids))
    log.warning("  the pairs have no token ids: their texts are tokenised, and other tokens may be trained than drawn")
    return tokenise(pairs, policy, chat, stop)


def tokenise(pairs: Pairs, policy: Policy, chat: bool, stop: Sequence[str]) -> Examples:
    """Pairs as examples, from their texts alone. See `examples_of` for the other arguments."""
    return _examples(
        policy,
        [policy.encode_prompt(text, chat) for text in pairs.prompt_B],
        [policy.encode_response(t, f, stop) for t, f in zip(pairs.chosen_B, pairs.chosen_finished_B, strict=True)],
        [policy.encode_response(t, f, stop) for t, f in zip(pairs.rejected_B, pairs.rejected_finished_B, strict=True)],
    )


def _examples(policy: Policy, prompt: list[list[int]], chosen: list[list[int]], rejected: list[list[int]]) -> Examples:
    arrangement = tried_arrangement(policy)
    return Examples(prompt, chosen, rejected, cast(int, policy.tokenizer.pad_token_id), arrangement)


def reference_logps(
    examples: Examples, policy: Policy, config: settings.Dpo, world: World, replicas: Replicas
) -> np.ndarray:
    """log pi_ref of every response, [B, 2], nats: the reference is the policy before its training. Collective.

    Args:
        replicas: of the policy's `ResponseLogps`.
    """
    chunks = micro_batches(range(len(examples)), examples.width_B, config)
    of_rank, label = {}, f"reference log-probabilities: {len(examples)} pairs"
    with progress.show(label, len(chunks), world.is_root) as task, torch.no_grad(), policy.autocast():
        for c in replicas.claim(len(chunks), task):
            of_rank[c] = examples.logps(replicas.bare, chunks[c]).sum_BR.cpu().numpy()
    reference_B2 = np.empty((len(examples), 2))
    for part in world.gather(of_rank):
        for c, logps in part.items():
            reference_B2[chunks[c]] = logps
    return reference_B2


def reference_key(examples: Examples, policy: Policy, policy_hash: str, config: settings.Dpo) -> str:
    """A hash of all that decides the reference log-probabilities: the policy, the tokens, and the computation.

    The cut of batches is part of it, because it decides the rounding, and weights must be the same bit for bit.
    Learning rate, epochs and loss are not part of it.
    """
    computation = (
        policy.device.type,
        policy.precision,
        policy.model.config._attn_implementation,
        config.strategy == "fsdp",
    )
    cut = (config.micro_pairs, config.micro_tokens, config.head_tokens, examples.arrangement)
    return _hash((policy_hash, computation, cut, examples.prompt, examples.chosen, examples.rejected))


def key_of(pairs: Pairs) -> str:
    """A hash of the texts and tokens of pairs in their order, 16 hex digits."""
    columns = (pairs.prompt_tokens_B, pairs.chosen_tokens_B, pairs.rejected_tokens_B)
    ids = [[row.tolist() for row in column] for column in columns]
    texts = (pairs.prompt_B, pairs.chosen_B, pairs.rejected_B)
    return _hash(list(zip(pairs.question_B.tolist(), *texts, *ids, strict=True)))


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]
