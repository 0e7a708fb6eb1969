"""Generated arithmetic questions: eight topics in three ranges of difficulty for the shipped micro model.

`small` is too easy for the model, `trained` is what it was trained on and solves sometimes, `hard` has far longer
numbers than it has ever seen. A worked response has at most one work step, then the line `#### answer`.
Pure: every draw comes from the generator or seed that the caller gives.
"""

import itertools
import math
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

Bounds = tuple[tuple[int, int], ...]

RANGES = ("hard", "trained", "small")
# Cells up to this size are shuffled whole, so that they run out exactly; a larger one (only `hard` has them, and they
# have billions of questions) is drawn from at random.
ENUMERABLE = 100_000


@dataclass(frozen=True)
class Problem:
    """One question: `solution` is its worked response, which ends in the line `#### answer`."""

    text: str
    solution: str
    answer: str
    topic: str
    span: str


@dataclass(frozen=True)
class Topic:
    """`write` turns operands into (text, work step or "", answer); a range has their bounds, both included.

    Bounds are chosen so that every choice of operands is a valid question with an answer that is not negative.
    """

    write: Callable[..., tuple[str, str, int]]
    trained: Bounds
    small: Bounds
    hard: Bounds

    def size(self, span: str) -> int:
        """Number of choices of operands in a range."""
        return math.prod(high - low + 1 for low, high in getattr(self, span))


def _add(a, b):
    return f"{a}+{b}=?", "", a + b


def _subtract(b, difference):
    return f"{b + difference}-{b}=?", "", difference


def _multiply(a, b):
    tens = b - b % 10
    return f"{a}*{b}=?", f"{a * tens}+{a * (b - tens)}" if tens else "", a * b


def _chain(a, b, c):
    return f"{a}+{b}-{c}=?", f"{a + b}-{c}", a + b - c


def _double(a, b):
    return f"double {a} add {b}", f"{2 * a}+{b}", 2 * a + b


def _remainder(n, divisor):
    return f"{n} mod {divisor}", f"{n}-{n - n % divisor}", n % divisor


def _gap(a, b):
    return f"gap {a} {b}", f"{max(a, b)}-{min(a, b)}", abs(a - b)


def _next(start, step):
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
    """Whether the micro model never saw this question in the trained range: a fifth of the texts, by their hash."""
    return zlib.crc32(text.encode()) % 5 == 0


def count(span: str) -> int:
    """Number of distinct questions in a range, all topics together: no two choices of operands share a text."""
    return sum(topic.size(span) for topic in TOPICS.values())


def problem(topic: str, span: str, rng: np.random.Generator) -> Problem:
    """One random question. ValueError for an unknown topic or range."""
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
    """`n` shuffled questions with distinct texts, none of them in `exclude`; the same for the same arguments.

    `shares` maps ranges to weights (normalised). Topics get equal parts of a range; when one has no question left, the
    others take over. `held_out` keeps only questions for which `is_held_out` has that value; None keeps all.
    ValueError for bad shares, and for a range with fewer distinct questions than its share asks for.
    """
    rng = np.random.default_rng(seed)
    taken = set(exclude)
    chosen: list[Problem] = []
    for span, count in _counts(shares, n).items():
        found = list(itertools.islice(_rotate(span, rng, taken, held_out), count))
        if len(found) < count:
            raise ValueError(f"range {span!r}: {count} distinct questions asked for, only {len(found)} left")
        chosen += found
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _counts(shares: Mapping[str, float], n: int) -> dict[str, int]:
    """Whole questions per range, by largest remainder, so that they add up to n."""
    _check_names(shares, RANGES, "range")
    total = sum(shares.values())
    if n < 0 or not 0 < total < math.inf or min(shares.values()) < 0:
        raise ValueError(f"need n >= 0 and finite shares >= 0 with a positive sum, got n={n}, shares={dict(shares)}")
    # The order of RANGES, not of the mapping, so that equal shares always give equal questions.
    exact = {span: n * shares[span] / total for span in RANGES if span in shares}
    counts = {span: int(value) for span, value in exact.items()}
    by_remainder = sorted(exact, key=lambda span: counts[span] - exact[span])
    for span in by_remainder[: n - sum(counts.values())]:
        counts[span] += 1
    return counts


def _rotate(span: str, rng: np.random.Generator, taken: set[str], held_out: bool | None) -> Iterator[Problem]:
    """New questions of a range, one topic after the other, until no topic has any left."""
    streams = [_stream(topic, span, rng, taken, held_out) for topic in TOPICS]
    while streams:
        # Which topics get the odd questions out is left to chance.
        for stream in [streams[i] for i in rng.permutation(len(streams))]:
            found = next(stream, None)
            if found is None:
                streams.remove(stream)
            else:
                yield found


def _stream(topic: str, span: str, rng: np.random.Generator, taken: set[str], held_out: bool | None):
    """New questions of one cell; adds each text to `taken`."""
    for candidate in _candidates(topic, span, rng):
        if candidate.text not in taken and held_out in (None, is_held_out(candidate.text)):
            taken.add(candidate.text)
            yield candidate


def _candidates(topic: str, span: str, rng: np.random.Generator) -> Iterator[Problem]:
    """Questions of one cell: each once in random order, or an endless random stream where the cell is large."""
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


def _check_names(names, known, what: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}: expected one of {', '.join(known)}")
