"""The responses that are decoded, by row: their tokens so far, and what draws the next ones. All of it on the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...settings.rollouts import Sampling
from .sampling import Response
from .work import Part

Ended = Callable[[np.ndarray, Callable[[int], list[int]]], np.ndarray]


class Rows:
    """The responses in decoding. A step costs a few operations of numpy, whatever the number of rows.

    Args:
        n_rows: number of rows, with those that are always empty.
        ended: which responses end by themselves with a token (`stopping.Ends.ended`).

    Attributes:
        is_active_R: whether a row has a response.
    """

    def __init__(self, n_rows: int, sampling: Sampling, ended: Ended):
        self._sampling, self._ended = sampling, ended
        self.is_active_R = np.zeros(n_rows, dtype=bool)
        self._of_R: list[tuple[Part, Response] | None] = [None] * n_rows
        self._n_R = np.zeros(n_rows, dtype=np.int64)  # tokens
        self._token_RT = np.zeros((n_rows, sampling.max_new_tokens), dtype=np.int64)
        self._uniform_RT = np.full((n_rows, sampling.max_new_tokens if sampling.temperature > 0 else 0), 0.5)
        self._logp_R, self._since_R = np.zeros((2, n_rows))
        self._clock_s = 0.0  # sum of the steps' times, each divided by the number of active rows

    def begin(self, rows: np.ndarray, part: Part) -> None:
        """Begin the responses of a part in these rows."""
        self.is_active_R[rows] = True
        self._n_R[rows], self._logp_R[rows], self._since_R[rows] = 0, 0.0, self._clock_s
        for row, response, seed in zip(rows.tolist(), part.responses, part.seeds, strict=True):
            self._of_R[row] = part, response
            if self._uniform_RT.shape[1]:
                self._uniform_RT[row] = np.random.default_rng(seed).random(self._uniform_RT.shape[1])

    def uniform(self, rows: np.ndarray) -> np.ndarray | None:
        """The numbers in [0, 1) that draw the next token of these rows; any for an empty row. None when greedy."""
        if not self._uniform_RT.shape[1]:
            return None
        return self._uniform_RT[rows, np.minimum(self._n_R[rows], self._uniform_RT.shape[1] - 1)]

    def append(self, rows: np.ndarray, token_N: np.ndarray, logp_N: np.ndarray | None, seconds: float) -> np.ndarray:
        """Append a token to each of these rows that is active. Returns the rows that it ended, now complete.

        Args:
            seconds: time of the step.
        """
        active = self.is_active_R[rows]
        rows, token_R = rows[active], token_N[active]
        self._clock_s += seconds / len(rows)
        self._token_RT[rows, self._n_R[rows]] = token_R
        self._n_R[rows] += 1
        if logp_N is not None:
            self._logp_R[rows] += logp_N[active]
        is_end_R = self._ended(token_R, lambda i: self._token_RT[rows[i], : self._n_R[rows[i]]].tolist())
        ended = is_end_R | (self._n_R[rows] == self._sampling.max_new_tokens)
        for row, finished in zip(rows[ended].tolist(), is_end_R[ended].tolist(), strict=True):
            self._fill(row, finished)
        return rows[ended]

    def _fill(self, row: int, finished: bool) -> None:
        part, response = self._at(row)
        response.tokens, response.finished = self._token_RT[row, : self._n_R[row]].tolist(), finished
        response.logp = float(self._logp_R[row])
        response.seconds = self._clock_s - float(self._since_R[row])
        part.n_left -= 1

    def remove(self, rows: np.ndarray) -> list[Part]:
        """Empty these rows. Returns the parts of which none is left."""
        self.is_active_R[rows] = False
        parts = {part: None for part, _ in map(self._at, rows.tolist()) if part.n_left == 0}
        for row in rows.tolist():
            self._of_R[row] = None
        return list(parts)

    def move(self, source: np.ndarray, target: np.ndarray) -> None:
        """Move rows to empty ones (`Places.compact`)."""
        for values in (self._n_R, self._token_RT, self._uniform_RT, self._logp_R, self._since_R, self.is_active_R):
            values[target] = values[source]
        self.is_active_R[source] = False
        for a, b in zip(source.tolist(), target.tolist(), strict=True):
            self._of_R[b], self._of_R[a] = self._of_R[a], None

    def _at(self, row: int) -> tuple[Part, Response]:
        found = self._of_R[row]
        assert found is not None
        return found
