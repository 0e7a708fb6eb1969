"""The work of an engine: prompts with the responses that are requested, taken one after another from a source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .sampling import Response


@dataclass(eq=False)
class Work:
    """A prompt, and the responses to it that are requested.

    Attributes:
        prompt: token ids.
        seeds: one per response; not used when greedy.
        start: number of tokens at its beginning with which many other prompts begin, too; less than all.
        responses: in the order of the seeds; complete when an engine returns the work.
    """

    prompt: Sequence[int]
    seeds: Sequence[int]
    start: int = 0
    responses: list[Response] = field(init=False)

    def __post_init__(self):
        self.responses = [Response() for _ in self.seeds]


@dataclass(frozen=True)
class Load:
    """Bounds of the works of a source.

    Attributes:
        k: responses of a work, at least. Few responses of many prompts need more memory than many of few.
        prompt_tokens: length of the longest prompt.
        rest_tokens, start_tokens: of the longest part of a prompt behind its start, and of the longest start.
        n_starts: number of different starts.
    """

    k: int
    prompt_tokens: int
    rest_tokens: int
    start_tokens: int = 0
    n_starts: int = 1


@dataclass(frozen=True)
class Options:
    """How to decode.

    Attributes:
        n_rows: maximum number of responses that are decoded at once.
        compiled: decode with torch.compile, except for attention, for any number of rows.
        graphs: replay the steps as CUDA graphs, with sizes rounded up to a few.
        with_logp: compute the log-probabilities of responses.
    """

    n_rows: int
    compiled: bool = False
    graphs: bool = False
    with_logp: bool = True


Source = Callable[[bool], Work | None]  # the next work; None: none is ready, or, after waiting (True), none is left


@dataclass(eq=False)
class Part:
    """Some responses of a work, few enough to be decoded at once: samples are their places in the work."""

    work: Work
    samples: list[int]
    n_left: int = 0

    def __post_init__(self):
        self.n_left = len(self.samples)

    @property
    def seeds(self) -> list[int]:
        return [self.work.seeds[s] for s in self.samples]

    @property
    def responses(self) -> list[Response]:
        return [self.work.responses[s] for s in self.samples]


class Backlog:
    """The works of a source, in parts of at most `n_rows` responses; those that are begun can be begun again.

    Attributes:
        drawn: the responses to each work that is begun and not complete.
    """

    def __init__(self, source: Source, n_rows: int):
        self._source, self._n_rows = source, n_rows
        self._parts: deque[Part] = deque()
        self._begun: dict[Work, int] = {}  # parts of each that are not done
        self.drawn: list[list[Response]] = []

    def take(self, wait: bool = False) -> Part | None:
        """Return the next part. None: none is ready; or, after waiting, none is left."""
        if not self._parts:
            work = self._source(wait)
            if work is None:
                return None
            self.drawn.append(work.responses)
            self._add(work, range(len(work.seeds)))
        return self._parts.popleft()

    def end(self, part: Part) -> Work | None:
        """Note that the responses of a part are complete. Return its work if that completes it."""
        work = part.work
        self._begun[work] -= 1
        if self._begun[work]:
            return None
        self._forget(work)
        return work

    def _forget(self, work: Work) -> None:
        del self._begun[work]
        self.drawn[:] = [responses for responses in self.drawn if responses is not work.responses]

    def begin_again(self, n_rows: int) -> list[Work]:
        """Put all incomplete responses back, in parts of at most `n_rows`. Returns works that are complete by now."""
        self._n_rows = n_rows
        self._parts.clear()
        complete = []
        for work in list(self._begun):
            if samples := [s for s, response in enumerate(work.responses) if not response.tokens]:
                self._add(work, samples)
            else:
                complete.append(work)
                self._forget(work)
        return complete

    def _add(self, work: Work, samples: Sequence[int]) -> None:
        parts = [Part(work, list(samples[i : i + self._n_rows])) for i in range(0, len(samples), self._n_rows)]
        self._begun[work] = len(parts)
        self._parts += parts


def listed(works: Sequence[Work]) -> Source:
    """A source of these works, those with the longest prompts first: less is padded."""
    waiting = deque(sorted(works, key=lambda work: -len(work.prompt)))
    return lambda wait: waiting.popleft() if waiting else None
