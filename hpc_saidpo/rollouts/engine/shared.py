"""The default engine: rows share keys and values, and the next prompts take the places of finished rows at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import PreTrainedConfig

from ...policy.decoded import at_places, decoder_of, logits_of
from ...policy.model import Policy
from ...policy.plain import configs_of
from ...policy.trial import attention_of
from ...settings.rollouts import Sampling
from . import kernels, places
from .attention import NAME
from .graphs import Graphs
from .kv_cache import KVCache
from .places import Capacity, Step
from .rows import Rows
from .sampling import choose
from .stopping import Ends
from .work import Backlog, Load, Options, Part

PREFILL_TOKENS = 2048  # of prompts that are read together
STARTS = 16  # starts of prompts that are kept at once
# Slots for prompts, as a multiple of those that full prompts need: rows end one by one, and their prompt stays.
SLOTS = 4
EMPTY = 1 / 8  # share of rows that may be empty before the last ones move, on a GPU


def supports(policy: Policy) -> bool:
    """Check cheaply what a try-out of a few tokens may not show: which tokens a layer sees. The rest is tried out."""
    model = policy.model
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"]
    return model._can_set_attn_implementation() and set(layers) <= {"full_attention", "sliding_attention"}


def decode(policy: Policy, backlog: Backlog, load: Load, sampling: Sampling, options: Options) -> Iterator[Part]:
    """Yield the parts of a backlog when their responses are complete.

    Raises:
        UnsupportedAttention: the model's attention needs a feature that ours lacks.
    """
    return Decoding(policy, backlog, load, sampling, options).run()


class Decoding:
    """The decoding of a backlog's parts. Arguments: see `decode`.

    Attributes:
        n_steps, n_row_steps: decoding steps so far, and their active rows together.
    """

    def __init__(self, policy: Policy, backlog: Backlog, load: Load, sampling: Sampling, options: Options):
        self._policy, self._backlog, self._sampling, self._options = policy, backlog, sampling, options
        self._model = decoder_of(policy.model)
        # A later call reuses the compiled code: torch stores it with the code of the model's class.
        self._decoder = torch.compile(self._model, dynamic=True) if options.compiled else self._model
        self._configs = configs_of(policy.model)
        self._graphs = Graphs() if options.graphs else None
        self._round = places.in_powers if options.graphs else places.exactly
        self._k = min(load.k, options.n_rows)
        n_slots = min(options.n_rows, -(-SLOTS * options.n_rows // self._k))
        n_starts = min(STARTS, load.n_starts)
        sizes = options.n_rows, sampling.max_new_tokens, n_slots, load.rest_tokens, n_starts, load.start_tokens
        self.cache = KVCache(Capacity(*sizes), policy.device, kernels.find_kernel(attention_of(policy.model)))
        self._places = self.cache.places
        self._rows = Rows(options.n_rows + 1, sampling, Ends(policy, sampling.stop).ended)
        self._starts: dict[tuple[int, ...], int] = {}
        self._in_hand: Part | None = None  # taken, but there is no room for it yet
        # The last one belongs to no row: what is computed for an empty row goes there.
        self._token_R = torch.zeros(options.n_rows + 1, dtype=torch.long, device=policy.device)
        self._logits: list[tuple[np.ndarray, torch.Tensor]] = []  # rows, and the logits of their next tokens
        self.n_steps = self.n_row_steps = 0

    def run(self) -> Iterator[Part]:
        """Decode all parts, and yield each when it is complete. Between two steps the model is as it was."""
        while True:
            started = time.perf_counter()
            with self._computing():
                self._compute_logits()
            admitted, start = self._admit()
            with self._computing():
                if admitted:
                    self._read_prompts(admitted, start)
                if not self._logits:
                    return
                done = self._choose_tokens(started)
            yield from done

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), _our_attention(self._configs), self._policy.autocast():
            yield

    def _admit(self) -> tuple[list[Part], int]:
        """Take parts of one start for which there is room. Waits for one if no row is active."""
        admitted: list[Part] = []
        shared: tuple[int, ...] = ()
        room, n_slots, n_tokens, start = self._places.n_free, len(self._places.free_slots()), 0, -1
        while n_tokens < PREFILL_TOKENS and len(admitted) < n_slots:
            if self._in_hand is None and room >= self._k:
                is_idle = not admitted and not self._rows.is_active_R.any()
                self._in_hand = self._backlog.take(is_idle)
            part = self._in_hand
            if part is None or len(part.samples) > room:
                break
            ids = tuple(part.work.prompt[: part.work.start])
            if admitted and ids != shared:
                break
            place = self._place_of(ids)
            if place is None:
                break
            admitted.append(part)
            self._in_hand, start, shared = None, place, ids
            room -= len(part.samples)
            n_tokens += len(part.work.prompt) - part.work.start
        return admitted, start

    def _place_of(self, ids: tuple[int, ...]) -> int | None:
        """The place of a start, which is read first if need be. None: all places are in use."""
        if ids not in self._starts:
            used_F = self._places.used_F
            free = [place for place in range(len(used_F)) if used_F[place] == 0]
            kept = set(self._starts.values())
            place = next((place for place in free if place not in kept), free[0] if free else None)
            if place is None:
                return None
            self._starts = {other: at for other, at in self._starts.items() if at != place} | {ids: place}
            self._places.length_F[place] = len(ids)
            if ids:
                with self._computing(), self.cache.read_start(place):
                    self._hidden(np.array([ids]), 0)
        return self._starts[ids]

    def _read_prompts(self, parts: list[Part], start: int) -> None:
        """Read the prompts of parts, and add a row for each of their responses."""
        first = int(self._places.length_F[start])
        rest = [part.work.prompt[first:] for part in parts]
        slots = self._places.free_slots()[: len(parts)]
        ids = np.zeros((len(parts), max(map(len, rest))), dtype=np.int64)
        for row, tokens in zip(ids, rest, strict=True):
            row[: len(tokens)] = tokens
        last = np.array([len(tokens) for tokens in rest]) - 1
        with self.cache.read_prompts(slots, ids.shape[1], start):
            outputs, on_device = self._hidden(ids, first)
        place = np.arange(len(parts)) * ids.shape[1] + last
        logits_PV = self._head(on_device, outputs, self._places.sent(place))
        rows = []
        for slot, part, tokens in zip(slots, parts, rest, strict=True):
            rows.append(self._places.add(slot, start, len(tokens), len(part.samples)))
            self._rows.begin(rows[-1], part)
        repeated = np.repeat(np.arange(len(parts)), list(map(len, rows)))
        self._logits.append((np.concatenate(rows), logits_PV[self._places.sent(repeated)]))

    def _hidden(self, ids: np.ndarray, first: int) -> tuple[object, torch.Tensor]:
        """The decoder's outputs for token ids [B, T], which begin at position `first`; and the ids on the device."""
        position = np.broadcast_to(np.arange(first, first + ids.shape[1]), ids.shape)
        on_device, position = self._places.sent(np.stack([ids, position]))
        return self._model(input_ids=on_device, position_ids=position, use_cache=False), on_device

    def _head(self, ids: torch.Tensor, outputs: object, place: torch.Tensor) -> torch.Tensor:
        """The logits [N, V], at places of the flattened rows."""
        return logits_of(self._policy.model, type(outputs), at_places(ids, outputs, place)).contiguous()

    def _compute_logits(self) -> None:
        """Compute the logits after the last token of each row."""
        self._logits = []
        if not self._places.n:
            return
        step = self._places.step(self._round)
        self.cache.make_room(step)
        logits_RV = self._graphs.run(step, lambda: self._decode(step)) if self._graphs else self._decode(step)
        self._places.advance()
        active_R = self._rows.is_active_R[: step.n_rows]
        self._logits.append((np.where(active_R, np.arange(step.n_rows), self._options.n_rows), logits_RV))
        self.n_steps += 1
        self.n_row_steps += int(active_R.sum())

    def _choose_tokens(self, started: float) -> list[Part]:
        """Choose the next token of each row. Returns the parts that are complete with it.

        Args:
            started: the time at which the step began.
        """
        rows = np.concatenate([rows for rows, _ in self._logits])
        token_N, logp_N = self._choose(rows)
        ended = self._rows.append(rows, token_N, logp_N, time.perf_counter() - started)
        if not len(ended):
            return []
        done = self._rows.remove(ended)
        self._places.remove(ended)
        self._close_gaps()
        return done

    def _choose(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Choose the next token of some rows. The host waits here, and nowhere else in a step."""
        logits_NV = torch.cat([logits for _, logits in self._logits]) if self._logits[1:] else self._logits[0][1]
        uniform_N = self._rows.uniform(rows)
        uniform = None if uniform_N is None else self._places.sent(uniform_N)
        token_N, logp_N = choose(logits_NV, uniform, self._sampling, self._options.with_logp)
        self._token_R[self._places.sent(rows)] = token_N
        if logp_N is None:
            return token_N.cpu().numpy(), None
        both = torch.stack([token_N.double(), logp_N.double()]).cpu().numpy()
        return both[0].astype(np.int64), both[1]

    def _decode(self, step: Step) -> torch.Tensor:
        """The logits [R, V] after the last token of each row. All its inputs are on the device, at fixed addresses."""
        ids, position = self._token_R[: step.n_rows, None], self.cache.positions(step)[:, None]
        with self.cache.decode(step):
            outputs = self._decoder(input_ids=ids, position_ids=position, use_cache=False)
        return self._head(ids, outputs, torch.arange(step.n_rows, device=ids.device))

    def _close_gaps(self) -> None:
        """Move the last rows into empty ones. On a GPU a few empty rows cost less than the moves."""
        n_empty = self._places.n - int(self._rows.is_active_R.sum())
        may_be_empty = self._options.graphs or self._policy.device.type != "cpu"
        if n_empty <= (EMPTY * self._places.n if may_be_empty else 0):
            return
        source, target = self._places.compact()
        moves = self._places.sent(np.stack([source, target]))
        self.cache.move_rows(moves[0], moves[1], int(self._places.generated_R[target].max(initial=0)))
        self._token_R[moves[1]] = self._token_R[moves[0]]
        self._rows.move(source, target)


@contextmanager
def _our_attention(configs: Sequence[PreTrainedConfig]) -> Iterator[None]:
    """A context in which the model with these configurations uses the attention of this engine."""
    before = [(config, config._attn_implementation) for config in configs]
    for config, _ in before:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation = implementation
