"""Every gold answer against itself, at load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .. import verify
from ..records import CORRECT


@dataclass(frozen=True)
class GoldReport:
    """How gradable the gold answers of a pool or benchmark are.

    Attributes:
        n, n_passed: gold answers, and those that a response which boxes them is right for.
        defects: how many show each of `verify.defects`.
        failed: ids of the first ones that do not pass.
    """

    n: int
    n_passed: int
    defects: dict[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        return self.n_passed / self.n if self.n else 1.0


def self_check(golds: Iterable[tuple[str, str]], show: int = 5) -> GoldReport:
    """Grade `\\boxed{gold}` against gold for each (id, gold).

    By text alone, in microseconds: it finds golds that are empty, that break the box, or that are lost in extraction.
    """
    n, passed, defects, failed = 0, 0, Counter(), []
    for name, gold in golds:
        n += 1
        found = verify.defects(gold)
        defects.update(found)
        answer = verify.extract(f"The answer is $\\boxed{{{' '.join(gold.split())}}}$.")
        judgement = verify.settle(gold, answer)
        if judgement is not None and judgement.verdict == CORRECT and "prose" not in found:
            passed += 1
        elif len(failed) < show:
            failed.append(name)
    return GoldReport(n, passed, dict(defects), tuple(failed))
