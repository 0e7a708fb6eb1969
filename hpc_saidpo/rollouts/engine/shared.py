"""The default engine: rows share keys and values, and the next prompts take the places of finished rows at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel

from ...policy.decoded import at_places, decoder_of, logits_of
from ...policy.model import Policy
from ...policy.plain import configs_of
from ...policy.trial import attention_of
from ...settings.rollouts import Sampling
from . import kernels
from .attention import NAME
from .kv_cache import KVCache
from .sampling import Response, choose
from .stopping import stopped

PREFILL_TOKENS = 2048  # of prompts that are read together


def supports(policy: Policy) -> bool:
    """Check cheaply what a try-out of a few tokens may not show: which tokens a layer sees. The rest is tried out."""
    model = policy.model
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"]
    return model._can_set_attn_implementation() and set(layers) <= {"full_attention", "sliding_attention"}


@torch.inference_mode()
def generate(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Response]],
    sampling: Sampling,
    n_rows: int,
    compiled: bool = False,
) -> float:
    """Fill in the responses to each prompt. Returns the bytes of keys and values that a token of a response took.

    Args:
        prompts: token ids, one list per prompt.
        seeds: for each prompt, one per response; not used when greedy.
        n_rows: maximum number of responses that are decoded at once; at least those of one prompt are.
        compiled: decode with torch.compile, except for attention, for any number of rows. No CUDA graphs: a graph needs
            fixed shapes, and the number of rows changes.

    Raises:
        UnsupportedAttention: the model's attention needs a feature that ours lacks.
    """
    kernel = kernels.find_kernel(attention_of(policy.model))
    with _our_attention(policy.model), policy.autocast():
        decoding = _Decoding(policy, prompts, seeds, responses, sampling, n_rows, kernel, compiled)
        decoding.run()
    return decoding.cache.token_bytes


@contextmanager
def _our_attention(model: PreTrainedModel) -> Iterator[None]:
    """A context in which the model uses the attention of this engine."""
    before = [(config, config._attn_implementation) for config in configs_of(model)]
    for config, _ in before:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation


class _Decoding:
    """The prompts that wait for a place, and the active rows. Arguments: see `generate`."""

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        responses: Sequence[Sequence[Response]],
        sampling: Sampling,
        n_rows: int,
        kernel: kernels.Kernel | None,
        compiled: bool,
    ):
        self.policy, self.sampling, self.responses = policy, sampling, responses
        self.model = decoder_of(policy.model)
        # A later call reuses the compiled code: torch stores it with the code of the model's class.
        self.decoder = torch.compile(self.model, dynamic=True) if compiled else self.model
        self.prompts = [list(prompt) for prompt in prompts]
        self.seeds = seeds
        self.n_rows = max(n_rows, *map(len, seeds))
        self.n_prefix = common_prefix(prompts)
        longest = max(map(len, prompts)) - self.n_prefix
        n_slots = min(len(prompts), -(-self.n_rows // min(map(len, seeds))))
        self.cache = KVCache(n_slots, self.n_rows, longest, policy.device, kernel=kernel)
        self.waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
        self.free_slots = list(range(n_slots))
        self.rows_left: dict[int, int] = {}  # active rows of each used slot
        self.active: list[Response] = []
        self.uniform: list[np.ndarray] = []  # for each active row the numbers that draw its tokens; [] when greedy
        self.step_started = time.perf_counter()

    def run(self) -> None:
        """Decode all responses."""
        if self.n_prefix:
            with self.cache.forward("prefix"):
                self._read([self.prompts[0][: self.n_prefix]], 0)
            self.cache.prefix_tokens = self.n_prefix
        logits = None
        while self.waiting or self.active:
            admitted = self._admit()
            if admitted is not None:
                logits = admitted if logits is None else torch.cat([logits, admitted])
            assert logits is not None  # a prompt is admitted whenever no row is active
            token = self._choose(logits)
            finished = self._append(token)
            if finished:
                token = token[torch.tensor(self._drop(finished), dtype=torch.long, device=token.device)]
            if not self.active:
                logits = None
                continue
            with self.cache.forward("rows"):
                logits = self._logits(token[:, None], self.cache.positions()[:, None])
            self.cache.generated_R += 1

    def _admit(self) -> torch.Tensor | None:
        """Read as many prompts as there is room for. Returns the logits of their first tokens, a row per response."""
        admitted, n_tokens = [], 0
        room = self.n_rows - len(self.active)
        while self.waiting and self.free_slots[len(admitted) :] and n_tokens < PREFILL_TOKENS:
            prompt = self.waiting[0]
            if len(self.seeds[prompt]) > room:
                break
            admitted.append(self.waiting.popleft())
            room -= len(self.seeds[prompt])
            n_tokens += len(self.prompts[prompt]) - self.n_prefix
        if not admitted:
            return None
        slots, self.free_slots = self.free_slots[: len(admitted)], self.free_slots[len(admitted) :]
        rest = [self.prompts[i][self.n_prefix :] for i in admitted]
        length = torch.tensor([len(ids) for ids in rest], device=self.cache.device)
        index = torch.tensor(slots, device=self.cache.device)
        with self.cache.forward("prompts", index):
            logits_P = self._read(rest, self.n_prefix)
        self.cache.length_P[index] = length
        for slot, prompt in zip(slots, admitted, strict=True):
            self._add_rows(slot, prompt)
        n_responses = [len(self.seeds[prompt]) for prompt in admitted]
        return logits_P.repeat_interleave(torch.tensor(n_responses, device=logits_P.device), dim=0)

    def _add_rows(self, slot: int, prompt: int) -> None:
        """Add a row for each response to a prompt."""
        seeds = self.seeds[prompt]
        self.cache.add_rows(slot, len(seeds))
        self.rows_left[slot] = len(seeds)
        self.active += self.responses[prompt]
        if self.sampling.temperature > 0:
            self.uniform += [np.random.default_rng(seed).random(self.sampling.max_new_tokens) for seed in seeds]

    def _read(self, rows: list[list[int]], first: int) -> torch.Tensor:
        """The logits [B, V] after each of these token lists, which begin at position `first`."""
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.cache.device)
        position = torch.arange(first, first + longest, device=self.cache.device).expand(len(rows), -1)
        last = torch.tensor([len(row) - 1 for row in rows], device=self.cache.device)
        return self._logits(ids, position, last)

    def _logits(self, ids: torch.Tensor, position: torch.Tensor, last: torch.Tensor | None = None) -> torch.Tensor:
        """The logits [B, V] at the index `last` of each row; without it, of rows of one token."""
        decoder = self.decoder if last is None else self.model
        outputs = decoder(input_ids=ids, position_ids=position, use_cache=False)
        place = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        place = place if last is None else place + last
        return logits_of(self.policy.model, type(outputs), at_places(ids, outputs, place)).contiguous()

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """Choose the next token of each active row."""
        uniform = None
        if self.sampling.temperature > 0:
            numbers = [u[len(r.tokens)] for u, r in zip(self.uniform, self.active, strict=True)]
            uniform = torch.tensor(numbers, dtype=torch.float64, device=logits.device)
        token, logp_R = choose(logits, uniform, self.sampling)
        for response, logp in zip(self.active, logp_R.tolist(), strict=True):
            response.logp += logp
        return token

    def _append(self, token_R: torch.Tensor) -> list[int]:
        """Append a token to each active row. Returns the rows that end with it."""
        now = time.perf_counter()
        share_s, self.step_started = (now - self.step_started) / len(self.active), now
        ended, eos = [], self.policy.eos_ids
        for i, (response, token) in enumerate(zip(self.active, token_R.tolist(), strict=True)):
            response.seconds += share_s
            response.tokens.append(token)
            response.finished = token in eos or stopped(self.policy, response.tokens, self.sampling.stop)
            if response.finished or len(response.tokens) == self.sampling.max_new_tokens:
                ended.append(i)
        return ended

    def _drop(self, rows: list[int]) -> list[int]:
        """Remove rows. Returns for each remaining row its index before the call."""
        for row in rows:
            slot = int(self.cache.slot_R[row])
            self.rows_left[slot] -= 1
            if not self.rows_left[slot]:
                self.free_slots.append(slot)
        order = self.cache.drop_rows(rows)
        self.active = [self.active[i] for i in order]
        self.uniform = [self.uniform[i] for i in order] if self.uniform else []
        return order


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all prompts begin with; at least one token of each prompt is not counted."""
    rows = [list(prompt) for prompt in prompts]
    first, last = min(rows), max(rows)  # a prefix of the lexicographic extremes is a prefix of all
    limit = min(map(len, rows)) - 1
    return next((i for i in range(limit) if first[i] != last[i]), limit)
