"""The default engine: rows share keys and values, finished rows make room for the next prompts at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ...policy.model import Policy
from ...settings.rollouts import Sampling
from . import kernels
from .attention import NAME, Kept
from .sampling import Response, choose
from .stopping import stopped

PREFILL_TOKENS = 2048  # of prompts that are read together


def can_drive(policy: Policy) -> bool:
    """Whether the model calls the attention interface, and keeps nothing else from token to token."""
    model = policy.model
    layers = getattr(model.config, "layer_types", None) or ["full_attention"]
    return (
        not model.config.is_encoder_decoder
        and model._can_set_attn_implementation()
        and set(layers) <= {"full_attention", "sliding_attention"}
    )


@torch.inference_mode()
def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    how: Sampling,
    n_rows: int,
    compiled: bool = False,
) -> None:
    """Fill in the responses to each prompt.

    Args:
        prompts: token ids, one list per prompt.
        seeds: for each prompt, one per response; unused when greedy.
        n_rows: responses that are decoded at once, at most; one prompt's at least.
        compiled: decode by torch.compile, all but attention, for any number of rows. No CUDA graphs: rows come and go,
            and so do the shapes that a graph is bound to.

    Raises:
        NotDriven: the model's attention asks for something else.
    """
    kernel = kernels.of(policy.model.config._attn_implementation)
    with _driven(policy), policy.autocast():
        _Decoding(policy, prompts, seeds, responses, how, n_rows, kernel, compiled).run()


@contextmanager
def _driven(policy: Policy):
    """The model with our attention; its own one afterwards."""
    before = policy.model.config._attn_implementation
    policy.model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        policy.model.set_attn_implementation(before)


class _Decoding:
    """Prompts that wait, and the rows of those at work."""

    def __init__(self, policy, prompts, seeds, responses, how, n_rows, kernel, compiled):
        self.policy, self.how, self.responses = policy, how, responses
        self.read = policy.model.base_model
        # What was compiled is found again by the next call: torch keeps it with the model's code, not with the model.
        self.decode = torch.compile(self.read, dynamic=True) if compiled else self.read
        self.prompts = [list(prompt) for prompt in prompts]
        self.seeds = seeds
        most = max(map(len, seeds))
        self.n_rows = max(n_rows, most)
        self.n_prefix = common_prefix(prompts)
        longest = max(map(len, prompts)) - self.n_prefix
        n_slots = min(len(prompts), -(-self.n_rows // min(map(len, seeds))))
        self.kept = Kept(n_slots, self.n_rows, longest, policy.device, kernel=kernel)
        self.waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
        self.free = list(range(n_slots))
        self.of_slot: dict[int, int] = {}  # rows that are left of a slot's prompt
        self.alive: list[Response] = []
        self.uniform: list[np.ndarray] = []
        self.started = time.perf_counter()

    def run(self) -> None:
        if self.n_prefix:
            with self.kept.during("prefix"):
                self._forward([self.prompts[0][: self.n_prefix]], 0)
            self.kept.prefix_tokens = self.n_prefix
        logits = None
        while self.waiting or self.alive:
            admitted = self._admit()
            logits = admitted if logits is None else torch.cat([logits, admitted]) if admitted is not None else logits
            token = self._choose(logits)
            gone = self._append(token)
            if gone:
                token = token[torch.tensor(self._drop(gone), dtype=torch.long, device=token.device)]
            if not self.alive:
                logits = None
                continue
            with self.kept.during("rows"):
                logits = self._logits(token[:, None], self.kept.positions()[:, None])
            self.kept.own_R += 1

    def _admit(self):
        """Read as many prompts as there is room for; the logits of their first tokens, a row for each response."""
        chosen, tokens = [], 0
        room = self.n_rows - len(self.alive)
        while self.waiting and self.free[len(chosen) :] and tokens < PREFILL_TOKENS:
            prompt = self.waiting[0]
            if len(self.seeds[prompt]) > room:
                break
            chosen.append(self.waiting.popleft())
            room -= len(self.seeds[prompt])
            tokens += len(self.prompts[prompt]) - self.n_prefix
        if not chosen:
            return None
        slots, self.free = self.free[: len(chosen)], self.free[len(chosen) :]
        own = [self.prompts[i][self.n_prefix :] for i in chosen]
        length = torch.tensor([len(p) for p in own], device=self.kept.device)
        index = torch.tensor(slots, device=self.kept.device)
        with self.kept.during("prompts", index):
            logits_P = self._forward(own, self.n_prefix)
        self.kept.length_P[index] = length
        repeats = []
        for slot, prompt in zip(slots, chosen, strict=True):
            n = len(self.seeds[prompt])
            self.kept.add_rows(slot, n)
            self.of_slot[slot] = n
            self.alive += self.responses[prompt]
            if self.how.temperature > 0:
                self.uniform += [
                    np.random.default_rng(seed).random(self.how.max_new_tokens) for seed in self.seeds[prompt]
                ]
            repeats.append(n)
        return logits_P.repeat_interleave(torch.tensor(repeats, device=logits_P.device), dim=0)

    def _forward(self, rows: list[list[int]], first: int):
        """The logits [B, V] after each of these token lists, which begin at position `first`."""
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.kept.device)
        at = torch.arange(first, first + longest, device=self.kept.device).expand(len(rows), -1)
        last = torch.tensor([len(row) - 1 for row in rows], device=self.kept.device)
        return self._logits(ids, at, last)

    def _logits(self, ids, at, last=None):
        decoder = self.decode if last is None else self.read
        hidden = decoder(input_ids=ids, position_ids=at, use_cache=False)[0]
        hidden = hidden[:, -1] if last is None else hidden[torch.arange(len(hidden), device=hidden.device), last]
        return head(self.policy.model, hidden).float().contiguous()

    def _choose(self, logits):
        uniform = None
        if self.how.temperature > 0:
            numbers = [u[len(r.tokens)] for u, r in zip(self.uniform, self.alive, strict=True)]
            uniform = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        token, logp_R = choose(logits, uniform, self.how)
        for response, logp in zip(self.alive, logp_R.tolist(), strict=True):
            response.logp += logp
        return token

    def _append(self, token) -> list[int]:
        """Give each row its token; the rows that end with it."""
        now = time.perf_counter()
        share, self.started = (now - self.started) / len(self.alive), now
        gone, eos = [], self.policy.eos_ids
        for i, (response, own) in enumerate(zip(self.alive, token.tolist(), strict=True)):
            response.seconds += share
            response.tokens.append(own)
            response.finished = own in eos or stopped(self.policy, response.tokens, self.how.stop)
            if response.finished or len(response.tokens) == self.how.max_new_tokens:
                gone.append(i)
        return gone

    def _drop(self, gone: list[int]) -> list[int]:
        for row in gone:
            slot = int(self.kept.slot_R[row])
            self.of_slot[slot] -= 1
            if not self.of_slot[slot]:
                self.free.append(slot)
        order = self.kept.drop_rows(gone)
        self.alive = [self.alive[i] for i in order]
        self.uniform = [self.uniform[i] for i in order] if self.uniform else []
        return order


def head(model, hidden):
    """Logits of hidden states, as the model's own forward makes them."""
    logits = model.get_output_embeddings()(hidden)
    softcap = getattr(model.config, "final_logit_softcapping", None)
    return torch.tanh(logits / softcap) * softcap if softcap else logits


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all prompts start with; every prompt keeps at least one of its own."""
    first, last = min(prompts), max(prompts)  # what the lexicographic extremes share, all share
    limit = min(map(len, prompts)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)
