"""Knowledge points of bench_claim's questions, in words as free as a tagger's: most texts of a pool are distinct."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpc_saidpo.records import Question

TOPIC = {
    "addition": (
        "addition", "adding two numbers", "sums of integers", "sum of two addends", "adding whole numbers",
        "column addition", "totals", "combining two quantities",
    ),
    "subtraction": (
        "subtraction", "subtracting numbers", "differences of integers", "minuend and subtrahend", "taking away",
        "column subtraction", "difference of two whole numbers", "inverse of addition",
    ),
    "multiplication": (
        "multiplication", "multiplying two numbers", "products of integers", "partial products", "times tables",
        "distributive law in products", "product of two factors", "repeated addition",
    ),
    "chain": (
        "order of operations", "addition and subtraction in a row", "multi-step expressions", "chained sums",
        "left-to-right evaluation", "sum followed by a difference", "three terms", "two operations in sequence",
    ),
    "doubling": (
        "doubling", "doubling and adding", "twice a number plus another", "double of a number", "multiplying by two",
        "linear expression 2a + b", "two equal parts and a remainder term", "double, then add",
    ),
    "remainder": (
        "modular arithmetic", "remainder of a division", "division with remainder", "modulo operation", "residues",
        "Euclidean division", "what is left after dividing", "congruences",
    ),
    "gap": (
        "absolute difference", "distance between two numbers", "gap between numbers", "absolute value of a difference",
        "how far apart two numbers are", "distance on the number line", "comparing two numbers", "larger minus smaller",
    ),
    "sequence": (
        "arithmetic sequences", "next term of a sequence", "number patterns", "arithmetic progressions",
        "common difference", "continuing a pattern", "linear sequences", "terms with a constant step",
    ),
}  # fmt: skip
SPAN = {
    "hard": (
        "numbers in the millions", "multi-digit arithmetic", "very large numbers", "six- and seven-digit numbers",
        "long integers", "numbers above one hundred thousand", "large operands", "written arithmetic with many digits",
    ),
    "trained": (
        "two-digit numbers", "numbers up to one hundred", "mental arithmetic with two digits", "numbers below 100",
        "tens and ones", "medium-sized numbers", "operands of two digits", "everyday numbers",
    ),
    "small": (
        "one-digit numbers", "basic facts", "very small numbers", "single digits", "numbers below ten",
        "counting numbers up to nine", "tiny operands", "first arithmetic facts",
    ),
}  # fmt: skip
GENERAL = (
    "place value", "number sense", "integer arithmetic", "carrying and borrowing", "elementary arithmetic",
    "mental calculation", "step-by-step calculation", "arithmetic fluency", "operations on integers",
    "checking a result", "numerical reasoning", "reading an expression", "basic algebra", "natural numbers",
)  # fmt: skip
UNSIZED = 0.1  # share of the questions whose knowledge points do not name the size of the numbers


def knowledge_points(questions: Sequence[Question], seed: int) -> list[tuple[str, ...]]:
    """Topic, size of the numbers and one or two general points of each question, in wordings and an order by chance."""
    rng = np.random.default_rng(seed)

    def one_of(words: Sequence[str]) -> str:
        return words[rng.integers(len(words))]

    points = []
    for question in questions:
        own = [one_of(TOPIC[question.subject])]
        if rng.random() >= UNSIZED:
            own.append(one_of(SPAN[question.level]))
        own += [GENERAL[i] for i in rng.permutation(len(GENERAL))[: rng.integers(1, 3)]]
        points.append(tuple(own[i] for i in rng.permutation(len(own))))
    return points
