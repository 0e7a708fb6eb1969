"""Keys and values that rows share, and attention over them: starts of prompts, prompts, responses.

A prompt's keys and values serve its K rows. A row attends in one softmax over the concatenated scores of all three
parts; with flash-attn's kernels, part by part (`kernels`). Keys and values are stored in buffers of a fixed size.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, cast

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from . import kernels
from .places import Capacity, Places, Step
from .scores import Scoring, attend_softcapped

ZEROED = 64  # tokens by which the used part of the responses' buffers grows
Mode = Literal["start", "prompts", "rows"]
Tensors = tuple[torch.Tensor, torch.Tensor]  # keys, values


@dataclass
class _Layer:
    """Keys and values of one call of attention: starts [F, H, T0, D], prompts [P, H, T1, D], rows [R, H, S, D].

    H is the number of key-value heads. Keys and values may have other sizes D.
    """

    starts: Tensors | None = None
    prompts: Tensors | None = None
    rows: Tensors | None = None


@dataclass
class KVCache:
    """Keys and values of all layers.

    Attributes:
        mode: purpose of the current forward pass, see `forward`.
        kernel: flash-attn's kernel for decoding (`kernels.find_kernel`); None computes with torch's matrix products.
    """

    capacity: Capacity
    device: torch.device
    kernel: kernels.Kernel | None = None
    layers: dict[tuple[int, int], _Layer] = field(default_factory=dict)
    mode: Mode = "start"

    def __post_init__(self):
        self.places = Places(self.capacity, self.device)
        self._start, self._slots = 0, torch.zeros(0, dtype=torch.long)  # written in this forward pass
        self._masks: dict[int | None, torch.Tensor] = {}
        self._targets: dict[int, torch.Tensor] = {}
        self._calls: Counter[int] = Counter()  # of attention in this forward pass, by module
        self._n_written_P = np.zeros(self.capacity.n_slots, dtype=np.int64)  # columns of each slot that are numbers
        self._n_zeroed = 0  # columns of the rows that are numbers

    @property
    def token_bytes(self) -> float:
        """Bytes of the keys and values of one token of a row."""
        stored = [x for layer in self.layers.values() for x in layer.rows or ()]
        return float(sum(x.shape[1] * x.shape[3] * x.itemsize for x in stored))

    @contextmanager
    def read_start(self, start: int) -> Iterator[None]:
        """A context for the forward pass over one row, which is stored as a start."""
        self._start = start
        with self._forward("start"):
            yield

    @contextmanager
    def read_prompts(self, slots: list[int], n_tokens: int, start: int) -> Iterator[None]:
        """A context for the forward pass over prompts, which are stored in these slots.

        Args:
            n_tokens: width of the rows.
            start: the start that they have in common; a start of length 0 is none.
        """
        self._start, self._slots = start, self.places.sent(np.array(slots))
        self._n_written_P[slots] = np.maximum(self._n_written_P[slots], n_tokens)
        with self._forward("prompts"):
            yield

    @contextmanager
    def decode(self, step: Step) -> Iterator[None]:
        """A context for the forward pass over one token of each row."""
        self._step = step
        self._by_slot, self._by_start = self.places.groups(step)
        self._rest_R, self._before_R, self._generated_R = self.places.facts_5R[:3, : step.n_rows]
        lengths = self.places.lengths_PF.split([self.capacity.n_slots, self.capacity.n_starts])
        groups = (self._by_slot, self._by_start)
        self._lengths = [x[g.first : g.first + g.n] for x, g in zip(lengths, groups, strict=True)]
        with self._forward("rows"):
            yield

    @contextmanager
    def _forward(self, mode: Mode) -> Iterator[None]:
        self.mode, self._masks, self._targets = mode, {}, {}
        self._calls.clear()
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def make_room(self, step: Step) -> None:
        """Fill with zeros what a step reads and no pass has written: a weight of 0 does not cancel what is no number.

        Call it before each step. It is not a part of the forward pass, which a graph may replay.
        """
        short = np.flatnonzero(self._n_written_P[: step.n_slots] < step.rest_tokens)
        zeroed = min(self.capacity.new_tokens, -(-step.n_generated // ZEROED) * ZEROED)
        for layer in self.layers.values():
            for prompts in layer.prompts or ():
                for slot in short:
                    prompts[slot, :, self._n_written_P[slot] : step.rest_tokens] = 0
            for rows in layer.rows or ():
                rows[:, :, self._n_zeroed : zeroed] = 0
        self._n_written_P[short] = step.rest_tokens
        self._n_zeroed = max(self._n_zeroed, zeroed) if self.layers else 0

    def positions(self, step: Step) -> torch.Tensor:
        """[R] the position of each row's next token."""
        facts = self.places.facts_5R[:, : step.n_rows]
        return facts[1] + facts[2]

    def move_rows(self, source: torch.Tensor, target: torch.Tensor, n: int) -> None:
        """Copy the first n tokens of some rows to others (`Places.compact`)."""
        for layer in self.layers.values():
            for stored in layer.rows or ():
                stored[target, :, :n] = stored[source, :, :n]

    def attend(
        self, module: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """Attention of a module. query [B, heads, T, D], key and value [B, H, T, D]; returns [B, T, heads, D].

        A module may call attention several times in a forward pass, or may occur in several layers: each of its calls
        has keys and values of its own.

        Args:
            module: a number that no other module has.
        """
        layer = self.layers.setdefault((module, self._calls[module]), _Layer())
        self._calls[module] += 1
        kind = query.device.type
        if torch.is_autocast_enabled(kind):  # rotary embeddings return float32, which adds no precision
            query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
        if self.mode != "rows":
            return self._prefill(layer, query, key, value, scoring)
        return self._decode(layer, query, key, value, scoring)

    def _prefill(
        self, layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """Prompts, padded on the right: a token sees the start and the tokens before it."""
        size, n_new = self.capacity, key.shape[2]
        if layer.prompts is None:
            layer.prompts = _buffers(key, value, size.n_slots, size.rest_tokens)
            layer.rows = _buffers(key, value, size.n_rows, size.new_tokens)
            layer.starts = _buffers(key, value, size.n_starts, size.start_tokens)
            for stored in layer.starts:
                stored.zero_()
        starts = cast(Tensors, layer.starts)
        if self.mode == "start":
            for stored, new in zip(starts, (key, value), strict=True):
                stored[self._start, :, :n_new] = new[0]
        else:
            for stored, new in zip(layer.prompts, (key, value), strict=True):
                stored[self._slots, :, :n_new] = new
            if n_start := int(self.places.length_F[self._start]):
                shared = (x[None, self._start, :, :n_start].expand(len(key), -1, -1, -1) for x in starts)
                key, value = (torch.cat(pair, dim=2) for pair in zip(shared, (key, value), strict=True))
        return self._attend_causally(query, key, value, scoring)

    def _attend_causally(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        mask = self._causal_mask(query.shape[2], key.shape[2], scoring.window)
        if scoring.softcap is not None:
            return attend_softcapped(query, key, value, mask, scoring.scaling, scoring.softcap)
        n_groups = query.shape[1] // key.shape[1]
        if self.device.type != "cpu" and n_groups > 1:  # CUDA's kernels with a mask have as many heads of keys
            key, value, n_groups = (*(x.repeat_interleave(n_groups, dim=1) for x in (key, value)), 1)
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scoring.scaling, enable_gqa=n_groups > 1
        )
        return attended.transpose(1, 2)

    def _causal_mask(self, n_new: int, n_all: int, window: int | None) -> torch.Tensor:
        if window not in self._masks:
            position = torch.arange(n_all, device=self.device)
            behind = position[n_all - n_new :, None] - position
            self._masks[window] = (behind >= 0) & (behind < (window or n_all + 1))
        return self._masks[window]

    def _decode(
        self, layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """One token of each row: it sees its start, its prompt and its response so far."""
        step, (n, heads, _, size), n_kv = self._step, query.shape, key.shape[1]
        k, v = cast(Tensors, layer.rows)
        for stored, new in ((k, key), (v, value)):
            stored.view(-1, new.shape[3]).index_copy_(0, self._next_places(n_kv), new.reshape(-1, new.shape[3]))
        k, v = k[:n, :, : step.n_generated], v[:n, :, : step.n_generated]
        prompts = [self._by_slot.stored(x, step.rest_tokens) for x in cast(Tensors, layer.prompts)]
        starts = [self._by_start.stored(x, step.start_tokens) for x in cast(Tensors, layer.starts)]
        query = query[:, :, 0].view(n, n_kv, heads // n_kv, size)
        if (
            self.kernel
            and kernels.supports(size)
            and v.shape[3] == size
            and step.furthest < (scoring.window or math.inf)
        ):
            shared = [(self._by_slot, prompts), (self._by_start, starts)][: 1 + bool(step.start_tokens)]
            attended = self._decode_by_kernel(self.kernel, query, (k, v), shared, scoring)
            return attended.reshape(n, 1, heads, size)
        query = query * scoring.scaling
        scores = [self._by_slot.times(query, prompts[0].transpose(-1, -2)), query @ k.transpose(-1, -2)]
        if step.start_tokens:
            scores.insert(0, self._by_start.times(query, starts[0].transpose(-1, -2)))
        score = torch.cat(scores, dim=-1).float()
        if scoring.softcap is not None:
            score = torch.tanh(score / scoring.softcap) * scoring.softcap
        weight = torch.softmax(score + self._row_mask(scoring.window), dim=-1).to(value.dtype)
        parts = weight.split([s.shape[-1] for s in scores], dim=-1)
        attended = self._by_slot.times(parts[-2], prompts[1]) + parts[-1] @ v
        if step.start_tokens:
            attended = attended + self._by_start.times(parts[0], starts[1])
        return attended.reshape(n, 1, heads, value.shape[3])

    def _decode_by_kernel(
        self, kernel: kernels.Kernel, query: torch.Tensor, response: Tensors, shared: list, scoring: Scoring
    ) -> torch.Tensor:
        """query [R, H, G, D] over all parts, none of which is cut by a sliding window: [R, H, G, D].

        Args:
            shared: (groups, their keys and values) of prompts, and of starts.
        """
        group = query.shape[2]
        query = query.transpose(1, 2).contiguous()
        options = scoring.scaling, scoring.softcap
        parts = [kernels.attend_part(kernel, query, response, (self._generated_R + 1).int(), *options)]
        for (groups, stored), length in zip(shared, self._lengths, strict=False):
            spread = groups.spread(query).flatten(1, 2)
            attended, lse = kernels.attend_part(kernel, spread, stored, length, *options)
            parts.append((groups.back(attended.unflatten(1, (-1, group))), groups.back(lse.unflatten(1, (-1, group)))))
        return kernels.merge_parts(parts).to(query.dtype).transpose(1, 2)

    def _next_places(self, n_kv: int) -> torch.Tensor:
        """[R * H] places of the rows' next tokens in keys or values [R, H, S, D], viewed as [R * H * S, D]."""
        if n_kv not in self._targets:
            row = torch.arange(self._step.n_rows * n_kv, device=self.device)
            self._targets[n_kv] = row * self.capacity.new_tokens + self._generated_R.repeat_interleave(
                n_kv, output_size=len(row)
            )
        return self._targets[n_kv]

    def _row_mask(self, window: int | None) -> torch.Tensor:
        """[R, 1, 1, T] 0 where a row's token sees a key, -inf elsewhere."""
        if window not in self._masks:
            step, rest_R1, before_R1 = self._step, self._rest_R[:, None], self._before_R[:, None]
            start, rest, new = (
                torch.arange(n, device=self.device) for n in (step.start_tokens, step.rest_tokens, step.n_generated)
            )
            seen = [start < before_R1 - rest_R1, rest < rest_R1, new <= self._generated_R[:, None]]
            seen_RT = torch.cat(seen, dim=1)
            if window:
                at = [start.expand(step.n_rows, -1), before_R1 - rest_R1 + rest, before_R1 + new]
                seen_RT &= (before_R1 + self._generated_R[:, None]) - torch.cat(at, dim=1) < window
            mask = torch.zeros(seen_RT.shape, device=self.device).masked_fill_(~seen_RT, float("-inf"))
            self._masks[window] = mask[:, None, None]
        return self._masks[window]


def _buffers(key: torch.Tensor, value: torch.Tensor, n: int, n_tokens: int) -> Tensors:
    """Keys and values [n, H, n_tokens, D] with the heads and sizes of these, [B, H, T, D]; not filled in."""
    return tuple(x.new_empty(n, x.shape[1], n_tokens, x.shape[3]) for x in (key, value))  # pyright: ignore[reportReturnType]


CURRENT: ContextVar[KVCache] = ContextVar("cache")  # of the forward pass in progress
