"""Attention over keys and values that rows share: a prefix of all prompts, a prompt of its K rows, and each row's own.

It is registered with transformers under `NAME`, so that any model that calls the attention interface is driven without
a line of its code copied. The model is called without a cache: what it would cache is kept here.

Rows attend in one softmax over the concatenated scores of all parts; by flash-attn's kernels, part by part (`kernels`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from . import kernels
from .by_prompt import ByPrompt

NAME = "hpc_saidpo_shared"
GROW = 64  # tokens by which the room for responses grows
_current: ContextVar[Kept] = ContextVar("kept")


class NotDriven(Exception):
    """The model's attention asks for something that this one does not do."""


@dataclass
class _Layer:
    """Keys and values of one layer: prefix [H, T0, D], prompts [P, H, T1, D], rows [R, H, S, D]; H key-value heads."""

    prefix: tuple[torch.Tensor, torch.Tensor] | None = None
    prompts: tuple[torch.Tensor, torch.Tensor] | None = None
    rows: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass
class Kept:
    """Keys and values of all layers, and which row belongs to which prompt.

    Attributes:
        n_slots, n_rows: prompts and rows that can be held at once.
        prompt_tokens: longest prompt, without the prefix.
        prefix_tokens: length of the prefix.
        length_P: tokens of each prompt without the prefix; 0 for a free slot.
        slot_R, own_R: of each row, its prompt's slot, and how many tokens of its own are kept.
        kernel: flash-attn's, for rows (`kernels.of`); None computes with torch's matrix products.
    """

    n_slots: int
    n_rows: int
    prompt_tokens: int
    device: torch.device
    prefix_tokens: int = 0
    layers: dict[int, _Layer] = field(default_factory=dict)
    mode: str = "prefix"
    kernel: Callable | None = None

    def __post_init__(self):
        self.length_P = torch.zeros(self.n_slots, dtype=torch.long, device=self.device)
        self.slot_R = torch.zeros(0, dtype=torch.long, device=self.device)
        self.own_R = torch.zeros(0, dtype=torch.long, device=self.device)
        self._slots: torch.Tensor | None = None  # written in this forward
        self._masks: dict[int | None, torch.Tensor] = {}
        self._places: dict[tuple[int, int], torch.Tensor] = {}

    @contextmanager
    def during(self, mode: str, slots: torch.Tensor | None = None) -> Iterator[None]:
        """What a forward is for: "prefix" and "prompts" (into these slots) fill, "rows" decodes one token of each."""
        self.mode, self._slots, self._masks, self._places = mode, slots, {}, {}
        if mode == "rows":
            self._arrange()
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def add_rows(self, slot: int, n: int) -> None:
        """n rows more, of the prompt in a slot."""
        self.slot_R = torch.cat([self.slot_R, self.slot_R.new_full((n,), slot)])
        self.own_R = torch.cat([self.own_R, self.own_R.new_zeros(n)])

    def drop_rows(self, gone: list[int]) -> list[int]:
        """Forget rows; the last ones take their places.

        Returns:
            For each row that is left, which one it was.
        """
        order = list(range(len(self.slot_R)))
        for row in sorted(gone, reverse=True):
            last = len(order) - 1
            if row != last:
                order[row] = order[last]
                for layer in self.layers.values():
                    for kept in layer.rows or ():
                        kept[row] = kept[last]
            order.pop()
        index = torch.tensor(order, dtype=torch.long, device=self.device)
        self.slot_R, self.own_R = self.slot_R[index], self.own_R[index]
        return order

    def positions(self) -> torch.Tensor:
        """[R] the position of each row's next token."""
        return self.prefix_tokens + self.length_P[self.slot_R] + self.own_R

    def attend(self, index: int, query, key, value, scaling, window, softcap) -> torch.Tensor:
        """Attention of a layer. query [B, heads, T, D], key and value [B, H, T, D]; returns [B, T, heads, D]."""
        layer = self.layers.setdefault(index, _Layer())
        kind = query.device.type
        if torch.is_autocast_enabled(kind):  # rotary embeddings give float32, of which nothing would be gained
            query, key, value = (x.to(torch.get_autocast_dtype(kind)) for x in (query, key, value))
        if self.mode == "rows":
            return self._of_rows(layer, query, key, value, scaling, window, softcap)
        return self._of_prompts(layer, query, key, value, scaling, window, softcap)

    def _of_prompts(self, layer, query, key, value, scaling, window, softcap):
        """Prompts, padded on the right: what a token sees is the prefix and what stands before it."""
        if self.mode == "prefix":
            # Kernels read heads that lie in one piece; matrix products may be faster as the model left them.
            form = torch.contiguous_format if self.kernel else torch.preserve_format
            layer.prefix = key[0].clone(memory_format=form), value[0].clone(memory_format=form)
        else:
            if layer.prompts is None:
                shape = (self.n_slots, key.shape[1], self.prompt_tokens, key.shape[3])
                layer.prompts = key.new_zeros(shape), value.new_zeros(shape)
            for kept, new in zip(layer.prompts, (key, value), strict=True):
                kept[self._slots, :, : new.shape[2]] = new
            if self.prefix_tokens:
                n = len(key)
                key, value = (
                    torch.cat([p.expand(n, *p.shape), new], dim=2)
                    for p, new in zip(layer.prefix, (key, value), strict=True)
                )
        mask = self._causal(query.shape[2], key.shape[2], window)
        if softcap is not None:
            return _plain(query, key, value, mask, scaling, softcap)
        found = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
        )
        return found.transpose(1, 2)

    def _causal(self, n_new: int, n_all: int, window: int | None) -> torch.Tensor:
        if window not in self._masks:
            at = torch.arange(n_all, device=self.device)
            behind = at[n_all - n_new :, None] - at
            self._masks[window] = (behind >= 0) & (behind < (window or n_all + 1))
        return self._masks[window]

    def _of_rows(self, layer, query, key, value, scaling, window, softcap):
        n, heads, _, size = query.shape
        n_kept = key.shape[1]
        k, v = self._room(layer, key, value)
        for kept, new in ((k, key), (v, value)):
            kept.view(-1, size).index_copy_(0, self._next(n_kept, k.shape[2]), new.reshape(-1, size))
        own = self._n_own
        k, v = k[:n, :, :own], v[:n, :, :own]
        query = query[:, :, 0].view(n, n_kept, heads // n_kept, size)
        if self.kernel and kernels.fits(size) and self._furthest < (window or math.inf):
            return self._by_kernel(layer, query, (k, v), scaling, softcap).reshape(n, 1, heads, size)
        query = query * scaling
        scores = [self._by_prompt.times(query, layer.prompts[0].transpose(-1, -2)), query @ k.transpose(-1, -2)]
        if self.prefix_tokens:
            scores.insert(0, _with_prefix(query, layer.prefix[0].transpose(-1, -2)))
        score = torch.cat(scores, dim=-1).float()
        if softcap is not None:
            score = torch.tanh(score / softcap) * softcap
        weight = torch.softmax(score + self._mask(window), dim=-1).to(value.dtype)
        parts = weight.split([s.shape[-1] for s in scores], dim=-1)
        found = self._by_prompt.times(parts[-2], layer.prompts[1]) + parts[-1] @ v
        if self.prefix_tokens:
            found = found + _with_prefix(parts[0], layer.prefix[1])
        return found.reshape(n, 1, heads, size)

    def _by_kernel(self, layer, query, own, scaling, softcap):
        """query [R, H, G, D] over all parts, none of which a window cuts: [R, H, G, D]."""
        n, n_kept, group, size = query.shape
        query = query.transpose(1, 2).contiguous()
        of_prefix, of_prompts, of_own = self._lengths

        def over(queries, kept, length):
            return kernels.partial(self.kernel, queries, kept, length, scaling, softcap)

        by_slot = over(self._by_prompt.spread(query).flatten(1, 2), layer.prompts, of_prompts)
        parts = [over(query, own, of_own)]
        parts.append([self._by_prompt.back(x.unflatten(1, (-1, group))) for x in by_slot])
        if self.prefix_tokens:
            shared = over(query.view(1, n * group, n_kept, size), [x[None] for x in layer.prefix], of_prefix)
            parts.append([x[0].unflatten(0, (n, group)) for x in shared])
        return kernels.merge(parts).to(query.dtype).transpose(1, 2)

    def _room(self, layer, key, value):
        """The rows' own keys and values, with room for one token more of each."""
        have = layer.rows[0].shape[2] if layer.rows else 0
        if have < self._n_own:
            shape = (self.n_rows, key.shape[1], have + GROW, key.shape[3])
            grown = key.new_zeros(shape), value.new_zeros(shape)
            for new, old in zip(grown, layer.rows or (), strict=bool(layer.rows)):
                new[:, :, :have] = old
            layer.rows = grown
        return layer.rows

    def _next(self, n_kept: int, room: int) -> torch.Tensor:
        """[R * H] where the rows' next tokens stand in keys or values [R, H, room, D], seen as [R * H * room, D]."""
        if (n_kept, room) not in self._places:
            row = torch.arange(len(self.own_R) * n_kept, device=self.device)
            self._places[n_kept, room] = row * room + self.own_R.repeat_interleave(n_kept)
        return self._places[n_kept, room]

    def _arrange(self) -> None:
        self._by_prompt = ByPrompt(self.slot_R, self.n_slots)
        self._n_own = int(self.own_R.max()) + 1
        if self.kernel:
            self._furthest = int(self.positions().max())
            prefix = torch.tensor([self.prefix_tokens], device=self.device)
            self._lengths = [x.int() for x in (prefix, self.length_P, self.own_R + 1)]

    def _mask(self, window: int | None) -> torch.Tensor:
        """[R, 1, 1, T] 0 where a row's token sees a key, -inf elsewhere."""
        if window not in self._masks:
            prompt_R, at_R = self.length_P[self.slot_R], self.positions()
            in_prompt = torch.arange(self.prompt_tokens, device=self.device)
            of_own = torch.arange(self._n_own, device=self.device)
            seen = torch.cat([in_prompt < prompt_R[:, None], of_own <= self.own_R[:, None]], dim=1)
            at = torch.cat([
                (self.prefix_tokens + in_prompt).expand(len(at_R), -1),
                self.prefix_tokens + prompt_R[:, None] + of_own,
            ], dim=1)  # fmt: skip
            if self.prefix_tokens:
                prefix = torch.arange(self.prefix_tokens, device=self.device).expand(len(at_R), -1)
                at, seen = torch.cat([prefix, at], dim=1), torch.cat([torch.ones_like(prefix, dtype=bool), seen], dim=1)
            if window:
                seen = seen & (at_R[:, None] - at < window)
            mask = torch.zeros(seen.shape, device=self.device).masked_fill_(~seen, float("-inf"))
            self._masks[window] = mask[:, None, None]
        return self._masks[window]


def _with_prefix(left, right):
    """left [R, H, G, X] times right [H, X, Y], the same for all rows: [R, H, G, Y]."""
    n, heads, group, x = left.shape
    found = left.transpose(0, 1).reshape(heads, n * group, x) @ right
    return found.view(heads, n, group, -1).transpose(0, 1)


def _plain(query, key, value, mask, scaling, softcap):
    groups = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    score = torch.tanh(query @ key.transpose(-1, -2) * scaling / softcap) * softcap
    weight = torch.softmax(score.float().masked_fill(~mask, float("-inf")), dim=-1).to(value.dtype)
    return (weight @ value).transpose(1, 2)


@torch.compiler.disable  # what is kept, and for which rows, differs from step to step
def _attend(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, sliding_window=None, softcap=None, **more
):
    if more.get("s_aux") is not None:
        raise NotDriven("attention sinks")
    if attention_mask is not None:
        raise NotDriven("a mask of its own")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    return _current.get().attend(module.layer_idx, query, key, value, scaling, sliding_window, softcap), None


AttentionInterface.register(NAME, _attend)
