"""Generated arithmetic questions: eight topics in three ranges of difficulty for the shipped micro model.

Range `small` is too easy for the model. It was trained on range `trained` and solves those questions sometimes. Range
`hard` has far longer numbers than the model has ever seen. A worked response has at most one work step, then the line
`#### answer`. Pure: every draw comes from the generator or seed that the caller passes.
"""

import itertools
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .expressions import expression

Bounds = tuple[tuple[int, int], ...]
Written = tuple[str, str, int]  # text, work step or "", answer

RANGES = ("hard", "trained", "small")
# A cell is one topic in one range. Up to this size a cell is shuffled as a whole, so that every question occurs once.
# Larger cells occur only in `hard` and have billions of questions: they are drawn from at random.
ENUMERABLE = 100_000


@dataclass(frozen=True)
class Problem:
    """One question. `solution` is its worked response, which ends with the line `#### answer`."""

    text: str
    solution: str
    answer: str
    topic: str
    span: str


@dataclass(frozen=True)
class Topic:
    """One kind of question.

    Attributes:
        write: operands -> (text, work step or "", answer).
        trained, small, hard: bounds of the operands in each range, both ends included. Every choice of operands within
            the bounds is a valid question whose answer is not negative.
    """

    write: Callable[..., Written]
    trained: Bounds
    small: Bounds
    hard: Bounds

    def size(self, span: str) -> int:
        """Return the number of choices of operands in a range."""
        return math.prod(high - low + 1 for low, high in getattr(self, span))


def _add(a: int, b: int) -> Written:
    return f"{a}+{b}=?", "", a + b


def _subtract(b: int, difference: int) -> Written:
    return f"{b + difference}-{b}=?", "", difference


def _multiply(a: int, b: int) -> Written:
    tens = b - b % 10
    return f"{a}*{b}=?", f"{a * tens}+{a * (b - tens)}" if tens else "", a * b


def _chain(a: int, b: int, c: int) -> Written:
    return f"{a}+{b}-{c}=?", f"{a + b}-{c}", a + b - c


def _double(a: int, b: int) -> Written:
    return f"double {a} add {b}", f"{2 * a}+{b}", 2 * a + b


def _remainder(n: int, divisor: int) -> Written:
    return f"{n} mod {divisor}", f"{n}-{n - n % divisor}", n % divisor


def _gap(a: int, b: int) -> Written:
    return f"gap {a} {b}", f"{max(a, b)}-{min(a, b)}", abs(a - b)


def _next(start: int, step: int) -> Written:
    terms = [start + i * step for i in range(4)]
    return f"next: {terms[0]} {terms[1]} {terms[2]}", f"{terms[2]}+{step}", terms[3]


_LONG = (100_000, 9_999_999)


TOPICS: dict[str, Topic] = {
    "addition": Topic(_add, trained=((10, 99),) * 2, small=((1, 9),) * 2, hard=(_LONG,) * 2),
    "subtraction": Topic(_subtract, trained=((10, 79),) * 2, small=((1, 9), (0, 9)), hard=(_LONG,) * 2),
    "multiplication": Topic(_multiply, trained=((3, 12), (11, 99)), small=((1, 9), (1, 9)), hard=(_LONG,) * 2),
    "chain": Topic(
        _chain,
        trained=((11, 50), (2, 20), (1, 9)),
        small=((4, 7), (1, 5), (1, 4)),
        hard=(_LONG, _LONG, (100_000, 199_999)),
    ),
    "doubling": Topic(_double, trained=((11, 60), (11, 60)), small=((1, 9), (1, 9)), hard=(_LONG,) * 2),
    # The divisors are long too: a small remainder could be guessed.
    "remainder": Topic(_remainder, trained=((13, 120), (3, 10)), small=((1, 12), (2, 6)), hard=(_LONG, (1000, 9999))),
    "gap": Topic(_gap, trained=((10, 69),) * 2, small=((1, 9),) * 2, hard=(_LONG,) * 2),
    "sequence": Topic(_next, trained=((10, 99), (2, 12)), small=((1, 9), (1, 6)), hard=(_LONG,) * 2),
}


def is_held_out(text: str) -> bool:
    """Whether this question is in the fifth (by hash of the text) that the micro model never saw in training."""
    return zlib.crc32(text.encode()) % 5 == 0


def count(span: str) -> int:
    """Return the number of distinct questions in a range over all topics: no two choices of operands share a text."""
    return sum(topic.size(span) for topic in TOPICS.values())


def problem(topic: str, span: str, rng: np.random.Generator) -> Problem:
    """Draw one random question.

    Raises:
        ValueError: unknown topic or range.
    """
    _check_names((topic,), TOPICS, "topic")
    _check_names((span,), RANGES, "range")
    bounds = getattr(TOPICS[topic], span)
    return _build(topic, span, [int(rng.integers(low, high + 1)) for low, high in bounds])


def problems(
    shares: Mapping[str, float],
    n: int,
    seed: int,
    exclude: Collection[str] = (),
    held_out: bool | None = None,
) -> list[Problem]:
    """Generate `n` shuffled questions with distinct texts; the same arguments always yield the same questions.

    Topics have equal parts of a range. When a topic has no question left, the other topics fill its part.

    Args:
        shares: weight of each range; normalised here.
        exclude: texts that must not occur, nor others that ask for the same expression (`expressions`).
        held_out: keep only questions for which `is_held_out` has this value; None keeps all.

    Raises:
        ValueError: shares are wrong, or a range has too few distinct questions for its share.
    """
    rng = np.random.default_rng(seed)
    excluded = {_asked(text) for text in exclude}
    chosen: list[Problem] = []
    for span, n_wanted in _counts(shares, n).items():
        fresh = list(itertools.islice(_rotate(span, rng, excluded, held_out), n_wanted))
        if len(fresh) < n_wanted:
            raise ValueError(f"range {span!r}: {n_wanted} distinct questions requested, only {len(fresh)} left")
        chosen += fresh
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _counts(shares: Mapping[str, float], n: int) -> dict[str, int]:
    """Return the number of questions of each range, by largest remainder; they add up to n."""
    _check_names(shares, RANGES, "range")
    total = sum(shares.values())
    if n < 0 or not 0 < total < math.inf or min(shares.values()) < 0:
        raise ValueError(f"need n >= 0 and finite shares >= 0 with a positive sum, got n={n}, shares={dict(shares)}")
    # In the order of RANGES, not of the mapping, so that equal shares always yield equal questions.
    exact = {span: n * shares[span] / total for span in RANGES if span in shares}
    counts = {span: int(value) for span, value in exact.items()}
    by_remainder = sorted(exact, key=lambda span: counts[span] - exact[span])
    for span in by_remainder[: n - sum(counts.values())]:
        counts[span] += 1
    return counts


def _rotate(span: str, rng: np.random.Generator, excluded: Collection[str], held_out: bool | None) -> Iterator[Problem]:
    """Yield new questions of a range, one topic after the other, until no topic has any left."""
    streams = [_stream(topic, span, rng, excluded, held_out) for topic in TOPICS]
    while streams:
        # A random order decides which topics have one question more.
        for stream in [streams[i] for i in rng.permutation(len(streams))]:
            fresh = next(stream, None)
            if fresh is None:
                streams.remove(stream)
            else:
                yield fresh


def _stream(
    topic: str, span: str, rng: np.random.Generator, excluded: Collection[str], held_out: bool | None
) -> Iterator[Problem]:
    """Yield the questions of one cell that are not excluded, each text once."""
    taken: set[str] = set()
    for candidate in _candidates(topic, span, rng):
        text = candidate.text
        if text not in taken and held_out in (None, is_held_out(text)) and not (excluded and _asked(text) in excluded):
            taken.add(text)
            yield candidate


def _asked(text: str) -> str:
    """Return what a question asks for: the same for other orders of operands."""
    return expression(text) or text


def _candidates(topic: str, span: str, rng: np.random.Generator) -> Iterator[Problem]:
    """Yield the questions of one cell: each once in random order, or without end where the cell is large."""
    cell = TOPICS[topic]
    if cell.size(span) > ENUMERABLE:
        while True:
            yield problem(topic, span, rng)
    bounds = getattr(cell, span)
    for index in rng.permutation(cell.size(span)):
        digits = np.unravel_index(index, [high - low + 1 for low, high in bounds])
        yield _build(topic, span, [low + int(digit) for (low, _), digit in zip(bounds, digits, strict=True)])


def _build(topic: str, span: str, operands: list[int]) -> Problem:
    text, step, answer = TOPICS[topic].write(*operands)
    last = f"#### {answer}"
    return Problem(text, f"{step}\n{last}" if step else last, str(answer), topic, span)


def _check_names(names: Iterable[str], allowed: Collection[str], kind: str) -> None:
    for name in names:
        if name not in allowed:
            raise ValueError(f"unknown {kind} {name!r}: expected one of {', '.join(allowed)}")
