"""Sets of graded answers for bench_grader: junk answers against real gold answers, and OpenCompass's VerifierBench."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc_saidpo.grader.answers.extract import extract
from hpc_saidpo.records import CORRECT

JUNK_PAIRS = 4000
LABELS = ("A", "B", "C")  # correct, incorrect, invalid
# Answers that are no number: words, signs, brackets, letters, and expressions without a finite value.
JUNK = (
    "undefined", "none", "N/A", "unknown", "infinity", "-infinity", "nan", "NaN", "oo", "-oo", "zoo", "inf", "null",
    "None", "True", "False", "yes", "no", "error", "answer", "the answer", "number", "a number", "???", "...", "-", "+",
    "=", "<", ">", "\\le", "\\ge", "\\neq", "\\approx", "\\times", "\\cdot", "\\pm", "\\frac{}{}", "\\sqrt{}", "()",
    "[]", "\\{\\}", "{}", "(,)", "||", "\\emptyset", "\\varnothing", "\\infty", "-\\infty", "\\pm\\infty", "1/0",
    "\\frac{1}{0}", "\\frac{0}{0}", "0/0", "0^0", "0^{-1}", "\\log 0", "\\ln 0", "\\ln(0)", "\\cot 0", "\\csc 0",
    "\\tan 90^\\circ", "\\tan\\frac{\\pi}{2}", "\\infty-\\infty", "\\frac{\\infty}{\\infty}", "0\\cdot\\infty",
    "1^\\infty", "\\infty^0", "\\frac{1}{\\infty}", "e^{-\\infty}", "\\sum_{n=1}^\\infty n",
    "\\sum_{n=1}^{\\infty}\\frac{1}{n}", "\\sum_{n=0}^\\infty (-1)^n", "\\sum_{n=0}^\\infty 2^n",
    "\\prod_{n=1}^\\infty n", "\\int_0^\\infty x\\,dx", "\\int_0^1\\frac{1}{x}dx", "\\int_{-1}^{1}\\frac{1}{x^2}dx",
    "\\lim_{x\\to0}\\frac{1}{x}", "\\lim_{x\\to0}\\frac{1}{x^2}", "\\lim_{x\\to\\infty}x",
    "\\lim_{x\\to\\infty}\\sin x",
    "x", "y", "n", "a", "b", "abc", "xyz", "f(x)", "AB", "\\theta", "\\alpha", "A and B", "(A)(B)(C)(D)", "A, B, C, D",
    "?", "!", "%", "\\%", "\\$", "\\text{cm}", "\\text{units}", "^\\circ", "\\text{see above}", "\\text{not possible}",
    "\\text{cannot be determined}", "x=", "=x", "x<", "<x", "x=\\frac{1}{0}", "(\\frac{1}{0},\\frac{1}{0})",
    "[\\infty,-\\infty]", "\\{\\frac{1}{0}\\}", "\\frac{1}{0}\\%", "\\frac{1}{0}:1", "\\frac{1}{0}\\text{ cm}",
)  # fmt: skip


def junk_pairs(golds: Sequence[str], seed: int = 0) -> list[tuple[str, str]]:
    """JUNK_PAIRS pairs (gold answer, junk answer); each junk answer occurs equally often."""
    rng = random.Random(seed)
    return [(rng.choice(golds), JUNK[i % len(JUNK)]) for i in range(JUNK_PAIRS)]


def read_verifierbench(path: Path, domain: str = "") -> list[dict]:
    """The rows of VerifierBench: question, gold_answer, llm_response, gold_judgment (A, B, C), domain and others.

    Args:
        path: verifierbench.json: one JSON list, or one object per line.
        domain: only rows of this domain, as "math"; "": all rows.

    Raises:
        ValueError: a row lacks a column, or its label is none of A, B, C.
    """
    text = path.read_text().strip()
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n")]
    for number, row in enumerate(rows, 1):
        if missing := [name for name in ("gold_answer", "llm_response", "gold_judgment") if name not in row]:
            raise ValueError(f"{path}, row {number}: no column {missing[0]!r}; it has {', '.join(row)}")
        if str(row["gold_judgment"]).strip().upper() not in LABELS:
            raise ValueError(f"{path}, row {number}: gold_judgment is {row['gold_judgment']!r}, not A, B or C")
    return [row for row in rows if not domain or str(row.get("domain", "")).lower().startswith(domain.lower())]


def label(response: str, verdict: int) -> str:
    """A verdict as a label of VerifierBench: a response that states no answer is invalid."""
    if verdict == CORRECT:
        return "A"
    return "B" if extract(response) else "C"


def verifierbench(rows: Sequence[dict], grade: Callable[[str, str], int]) -> dict[str, float]:
    """Accuracy on the rows, F1 of each label, and the mean F1 over the labels that occur."""
    pairs = [
        (
            str(row["gold_judgment"]).strip().upper(),
            label(str(row["llm_response"]), grade(str(row["llm_response"]), str(row["gold_answer"]))),
        )
        for row in rows
    ]
    figures = {"verifierbench_accuracy": sum(gold == found for gold, found in pairs) / len(pairs)}
    present = [name for name in LABELS if any(gold == name for gold, _ in pairs)]
    for name in present:
        hits = sum(gold == found == name for gold, found in pairs)
        named = sum((gold == name) + (found == name) for gold, found in pairs)
        figures[f"verifierbench_f1_{name}"] = 2 * hits / named
    return figures | {"verifierbench_f1": sum(figures[f"verifierbench_f1_{name}"] for name in present) / len(present)}
