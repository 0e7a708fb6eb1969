"""Keys and values that rows share, and attention over them: a prefix of all prompts, prompts, responses.

A prompt's keys and values serve its K rows. A row attends in one softmax over the concatenated scores of all three
parts; with flash-attn's kernels, part by part (`kernels`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch.nn.functional import scaled_dot_product_attention

from . import kernels
from .by_prompt import ByPrompt
from .scores import Scoring, attend_softcapped, times_prefix

GROW = 64  # tokens by which the buffers for responses grow
Mode = Literal["prefix", "prompts", "rows"]
Tensors = tuple[torch.Tensor, torch.Tensor]  # keys, values


@dataclass
class _Layer:
    """Keys and values of one call of attention: prefix [H, T0, D], prompts [P, H, T1, D], rows [R, H, S, D].

    H is the number of key-value heads. Keys and values may have other sizes D.
    """

    prefix: Tensors | None = None
    prompts: Tensors | None = None
    rows: Tensors | None = None


@dataclass
class KVCache:
    """Keys and values of all layers, and the prompt of each row.

    Attributes:
        n_slots, n_rows: maximum number of prompts and of rows.
        prompt_tokens: length of the longest prompt, without the prefix.
        prefix_tokens: length of the prefix.
        mode: purpose of the current forward pass, see `forward`.
        kernel: flash-attn's kernel for decoding (`kernels.find_kernel`); None computes with torch's matrix products.
        length_P: tokens of each slot's prompt without the prefix; 0 for a free slot.
        slot_R: slot of each row's prompt.
        generated_R: tokens of each row's response whose keys and values are stored.
    """

    n_slots: int
    n_rows: int
    prompt_tokens: int
    device: torch.device
    prefix_tokens: int = 0
    layers: dict[tuple[int, int], _Layer] = field(default_factory=dict)
    mode: Mode = "prefix"
    kernel: kernels.Kernel | None = None

    def __post_init__(self):
        self.length_P = torch.zeros(self.n_slots, dtype=torch.long, device=self.device)
        self.slot_R = torch.zeros(0, dtype=torch.long, device=self.device)
        self.generated_R = torch.zeros(0, dtype=torch.long, device=self.device)
        self._slots: torch.Tensor | None = None  # written in this forward pass
        self._masks: dict[int | None, torch.Tensor] = {}
        self._places: dict[tuple[int, int], torch.Tensor] = {}
        self._calls: Counter[int] = Counter()  # of attention in this forward pass, by module

    @property
    def token_bytes(self) -> float:
        """Bytes of the keys and values of one token of a row."""
        stored = [x for layer in self.layers.values() for x in layer.rows or ()]
        return float(sum(x.shape[1] * x.shape[3] * x.itemsize for x in stored))

    @contextmanager
    def forward(self, mode: Mode, slots: torch.Tensor | None = None) -> Iterator[None]:
        """A context for one forward pass of the model.

        Args:
            mode: "prefix" and "prompts" (into these slots) store the keys and values of their tokens; "rows" decodes
                one token of each row.
        """
        self.mode, self._slots, self._masks, self._places = mode, slots, {}, {}
        self._calls.clear()
        if mode == "rows":
            self._prepare_rows()
        token = CURRENT.set(self)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def add_rows(self, slot: int, n: int) -> None:
        """Add n rows of the prompt in a slot."""
        self.slot_R = torch.cat([self.slot_R, self.slot_R.new_full((n,), slot)])
        self.generated_R = torch.cat([self.generated_R, self.generated_R.new_zeros(n)])

    def drop_rows(self, finished: list[int]) -> list[int]:
        """Remove rows; the last rows move to their places.

        Returns:
            For each remaining row, its index before the call.
        """
        order = list(range(len(self.slot_R)))
        for row in sorted(finished, reverse=True):
            last = len(order) - 1
            if row != last:
                order[row] = order[last]
                for layer in self.layers.values():
                    for stored in layer.rows or ():
                        stored[row] = stored[last]
            order.pop()
        index = torch.tensor(order, dtype=torch.long, device=self.device)
        self.slot_R, self.generated_R = self.slot_R[index], self.generated_R[index]
        return order

    def positions(self) -> torch.Tensor:
        """[R] the position of each row's next token."""
        return self.prefix_tokens + self.length_P[self.slot_R] + self.generated_R

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
        return (self._decode if self.mode == "rows" else self._prefill)(layer, query, key, value, scoring)

    def _prefill(
        self, layer: _Layer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scoring: Scoring
    ) -> torch.Tensor:
        """Prompts, padded on the right: a token sees the prefix and the tokens before it."""
        if self.mode == "prefix":
            # Kernels need contiguous heads; matrix products may be faster in the memory layout of the model.
            form = torch.contiguous_format if self.kernel else torch.preserve_format
            layer.prefix = key[0].clone(memory_format=form), value[0].clone(memory_format=form)
        else:
            if layer.prompts is None:
                size = self.n_slots, self.prompt_tokens
                layer.prompts = _zeros(key, *size), _zeros(value, *size)
            for stored, new in zip(layer.prompts, (key, value), strict=True):
                stored[self._slots, :, : new.shape[2]] = new
            if layer.prefix:
                n = len(key)
                key, value = (
                    torch.cat([p.expand(n, *p.shape), new], dim=2)
                    for p, new in zip(layer.prefix, (key, value), strict=True)
                )
        mask = self._causal_mask(query.shape[2], key.shape[2], scoring.window)
        if scoring.softcap is not None:
            return attend_softcapped(query, key, value, mask, scoring.scaling, scoring.softcap)
        attended = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scoring.scaling, enable_gqa=query.shape[1] != key.shape[1]
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
        """One token of each row: it sees the prefix, its prompt and its response so far."""
        n, heads, _, size = query.shape
        n_kv = key.shape[1]
        k, v = self._buffers(layer, key, value)
        for stored, new in ((k, key), (v, value)):
            width = new.shape[3]
            stored.view(-1, width).index_copy_(0, self._next_places(n_kv, k.shape[2]), new.reshape(-1, width))
        n_generated = self._n_generated
        k, v = k[:n, :, :n_generated], v[:n, :, :n_generated]
        query = query[:, :, 0].view(n, n_kv, heads // n_kv, size)
        same_size = value.shape[3] == size
        if self.kernel and kernels.supports(size) and same_size and self._furthest < (scoring.window or math.inf):
            return self._decode_by_kernel(self.kernel, layer, query, (k, v), scoring).reshape(n, 1, heads, size)
        prompt_k, prompt_v = cast(Tensors, layer.prompts)
        query = query * scoring.scaling
        scores = [self._by_prompt.times(query, prompt_k.transpose(-1, -2)), query @ k.transpose(-1, -2)]
        if layer.prefix:
            scores.insert(0, times_prefix(query, layer.prefix[0].transpose(-1, -2)))
        score = torch.cat(scores, dim=-1).float()
        if scoring.softcap is not None:
            score = torch.tanh(score / scoring.softcap) * scoring.softcap
        weight = torch.softmax(score + self._row_mask(scoring.window), dim=-1).to(value.dtype)
        parts = weight.split([s.shape[-1] for s in scores], dim=-1)
        attended = self._by_prompt.times(parts[-2], prompt_v) + parts[-1] @ v
        if layer.prefix:
            attended = attended + times_prefix(parts[0], layer.prefix[1])
        return attended.reshape(n, 1, heads, value.shape[3])

    def _decode_by_kernel(
        self, kernel: kernels.Kernel, layer: _Layer, query: torch.Tensor, response: Tensors, scoring: Scoring
    ) -> torch.Tensor:
        """query [R, H, G, D] over all parts, none of which is cut by a sliding window: [R, H, G, D]."""
        n, n_kv, group, size = query.shape
        query = query.transpose(1, 2).contiguous()
        prefix_length, prompt_length, response_length = self._lengths

        def over(queries: torch.Tensor, stored: Tensors, length: torch.Tensor) -> kernels.Part:
            return kernels.attend_part(kernel, queries, stored, length, scoring.scaling, scoring.softcap)

        by_slot = over(self._by_prompt.spread(query).flatten(1, 2), cast(Tensors, layer.prompts), prompt_length)
        parts = [over(query, response, response_length)]
        attended, lse = (self._by_prompt.back(x.unflatten(1, (-1, group))) for x in by_slot)
        parts.append((attended, lse))
        if layer.prefix:
            key, value = layer.prefix
            shared = over(query.view(1, n * group, n_kv, size), (key[None], value[None]), prefix_length)
            attended, lse = (x[0].unflatten(0, (n, group)) for x in shared)
            parts.append((attended, lse))
        return kernels.merge_parts(parts).to(query.dtype).transpose(1, 2)

    def _buffers(self, layer: _Layer, key: torch.Tensor, value: torch.Tensor) -> Tensors:
        """The keys and values of the rows' responses, with room for one more token of each row."""
        room = layer.rows[0].shape[2] if layer.rows else 0
        if layer.rows is None or room < self._n_generated:
            grown = _zeros(key, self.n_rows, room + GROW), _zeros(value, self.n_rows, room + GROW)
            for new, old in zip(grown, layer.rows or (), strict=bool(layer.rows)):
                new[:, :, :room] = old
            layer.rows = grown
        return layer.rows

    def _next_places(self, n_kv: int, room: int) -> torch.Tensor:
        """[R * H] places of the rows' next tokens in keys or values [R, H, room, D], viewed as [R * H * room, D]."""
        if (n_kv, room) not in self._places:
            row = torch.arange(len(self.generated_R) * n_kv, device=self.device)
            self._places[n_kv, room] = row * room + self.generated_R.repeat_interleave(n_kv)
        return self._places[n_kv, room]

    def _prepare_rows(self) -> None:
        self._by_prompt = ByPrompt(self.slot_R, self.n_slots)
        self._n_generated = int(self.generated_R.max()) + 1  # with the token of this pass
        if self.kernel:
            self._furthest = int(self.positions().max())
            prefix = torch.tensor([self.prefix_tokens], device=self.device)
            self._lengths = [x.int() for x in (prefix, self.length_P, self.generated_R + 1)]

    def _row_mask(self, window: int | None) -> torch.Tensor:
        """[R, 1, 1, T] 0 where a row's token sees a key, -inf elsewhere."""
        if window not in self._masks:
            prompt_R, position_R = self.length_P[self.slot_R], self.positions()
            in_prompt = torch.arange(self.prompt_tokens, device=self.device)
            in_response = torch.arange(self._n_generated, device=self.device)
            seen = torch.cat([in_prompt < prompt_R[:, None], in_response <= self.generated_R[:, None]], dim=1)
            at = torch.cat([
                (self.prefix_tokens + in_prompt).expand(len(position_R), -1),
                self.prefix_tokens + prompt_R[:, None] + in_response,
            ], dim=1)  # fmt: skip
            if self.prefix_tokens:
                prefix = torch.arange(self.prefix_tokens, device=self.device).expand(len(position_R), -1)
                all_seen = torch.ones_like(prefix, dtype=torch.bool)
                at, seen = torch.cat([prefix, at], dim=1), torch.cat([all_seen, seen], dim=1)
            if window:
                seen = seen & (position_R[:, None] - at < window)
            mask = torch.zeros(seen.shape, device=self.device).masked_fill_(~seen, float("-inf"))
            self._masks[window] = mask[:, None, None]
        return self._masks[window]


def _zeros(like: torch.Tensor, n: int, n_tokens: int) -> torch.Tensor:
    """[n, H, n_tokens, D] with the heads and sizes of keys or values [B, H, T, D]."""
    return like.new_zeros(n, like.shape[1], n_tokens, like.shape[3])


CURRENT: ContextVar[KVCache] = ContextVar("cache")  # of the forward pass in progress
