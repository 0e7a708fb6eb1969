"""CUDA graphs of decoding steps: a step of the same sizes is replayed in one launch. Not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .places import Step

WARM_UP = 2  # passes before a capture: kernels are chosen, workspaces are allocated


class Graphs:
    """The graphs of one decoder, by the sizes of a step. What a step reads and writes must have fixed addresses."""

    def __init__(self):
        self._captured: dict[Step, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._pool = None  # of memory that the graphs share: one runs at a time

    def run(self, step: Step, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The result of `compute` by a graph, captured when these sizes come for the first time.

        The result is valid until the next call. `compute` may run several times, and must give the same each time.
        """
        if step not in self._captured:
            self._captured[step] = self._capture(compute)
        graph, result = self._captured[step]
        graph.replay()
        return result

    def _capture(self, compute: Callable[[], torch.Tensor]) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            result = compute()
        self._pool = graph.pool()
        return graph, result
