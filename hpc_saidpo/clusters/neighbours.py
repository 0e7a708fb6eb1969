"""Sums over the texts that are most similar to a text: a triangular kernel over cosine similarity.

The kernel is as wide as the neighbours of a text are far away (Loftsgaarden & Quesenberry 1965), so it suits any
encoder: no similarity must be called large or small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

EQUAL = 1e-3  # a smaller difference of cosines says nothing: it is the rounding of a float16 encoder
BLOCK = 2**23  # similarities computed at once


@dataclass(frozen=True)
class Neighbours:
    """The texts of a pool by similarity.

    Attributes:
        text_N: row of each question's text in `vector_UD`.
        vector_UD: L2-normalised vectors of the U distinct texts, float32. Only root needs them.
        n: number of neighbours.
        device: computes the similarities.
    """

    text_N: np.ndarray
    vector_UD: np.ndarray
    n: int
    device: torch.device = torch.device("cpu")

    @classmethod
    def of(
        cls, text_N: Sequence[str], text_U: Sequence[str], vector_UD: np.ndarray, n: int, device: torch.device
    ) -> Neighbours:
        """The neighbours among the texts of a pool's questions.

        Args:
            text_N: the text of each question.
            text_U: the distinct texts, whose vectors `vector_UD` has.
        """
        row_of = {text: row for row, text in enumerate(text_U)}
        return cls(np.fromiter(map(row_of.__getitem__, text_N), np.int64, len(text_N)), vector_UD, n, device)

    def smooth(self, row_T: np.ndarray, value_TF: np.ndarray) -> np.ndarray:
        """Return for each text the weighted sum of the values of its neighbours, float64 of shape (U, F).

        The weight of a neighbour falls linearly with its cosine: from 1 for the nearest one to nearly 0 for the first
        text that is no neighbour any more; 1 for all if their cosines are equal. A text with a value is its own
        neighbour. The work is in blocks: the memory beside the result does not grow with U.

        Args:
            row_T: rows of the texts that have values, at least one.
            value_TF: their values.
        """
        given_TD = torch.from_numpy(self.vector_UD[row_T]).to(self.device)
        value = torch.from_numpy(np.asarray(value_TF, dtype=np.float32)).to(self.device)
        found_UF = np.empty((len(self.vector_UD), value.shape[1]))
        size = max(1, BLOCK // len(row_T))
        for start in range(0, len(found_UF), size):
            rows = slice(start, start + size)
            cosine_BT = torch.from_numpy(self.vector_UD[rows]).to(self.device) @ given_TD.T
            near_BM, index_BM = torch.topk(cosine_BT, min(self.n + 1, len(row_T)), dim=1)
            farthest_B1 = near_BM[:, -1:]
            weight_BM = (near_BM - farthest_B1 + EQUAL) / (near_BM[:, :1] - farthest_B1 + EQUAL)
            found_UF[rows] = (weight_BM[:, :, None] * value[index_BM]).sum(1).cpu().numpy()
        return found_UF
