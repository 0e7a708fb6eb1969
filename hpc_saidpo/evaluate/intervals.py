"""Accuracy and other mean pass rates with their 95 % intervals."""

from __future__ import annotations

import numpy as np

from ..records import Difficulty

LEVEL = 0.975  # the upper quantile of a two-sided 95 % interval
PRIOR_CORRELATION, PRIOR_QUESTIONS = 0.5, 3  # of the responses to one question, see `mean_rate`


def accuracy(measured: Difficulty) -> dict:
    """Mean pass rate over questions (pass@1 greedy for one sample, avg@k for k) and its 95 % interval.

    Returns:
        A flat dict: accuracy, low95, high95 (shares of 1), n_questions, n_samples; all but the last two are None
        without questions.
    """
    n = len(measured)
    mean, low, high = mean_rate(measured) if n else (None, None, None)
    n_samples = int(measured.n_tried_Q.max()) if n else 0
    return {"accuracy": mean, "low95": low, "high95": high, "n_questions": n, "n_samples": n_samples}


def mean_rate(measured: Difficulty) -> tuple[float, float, float]:
    """Mean pass rate over one or more questions, and its 95 % interval: (mean, low, high).

    The interval is Wilson's with Student's t and an effective number of responses (Korn & Graubard 1998): the responses
    to one question are alike, so K of them are worth one if the questions are solved always or never, and K if all
    questions have the same pass rate. With the intraclass correlation r, n·K responses are worth n·K / (1 + (K - 1)·r).

    r follows from the variance of the mean over questions: n_eff = p(1 - p) / SE², between n and n·K. It is estimated
    from the questions that are not like the most: those with a correct response, if few have one. A few of these say
    little about r, so its prior value weighs like PRIOR_QUESTIONS of them (this prior is ours).
    """
    n, n_responses = len(measured), float(measured.n_tried_Q.sum())
    rate_Q = measured.pass_rate_Q
    mean, k = float(rate_Q.mean()), n_responses / n
    if n == 1 or k == 1:
        return mean, *wilson(mean * n, n, max(n - 1, 1))
    square = float(rate_Q.var(ddof=1)) / n
    worth = min(max(mean * (1 - mean) / square, n), n_responses) if square > 0 else n_responses
    correlation = (n_responses / worth - 1) / (k - 1)
    n_informed = max(1, min(int((rate_Q > 0).sum()), int((rate_Q < 1).sum())))
    prior = PRIOR_QUESTIONS * PRIOR_CORRELATION
    correlation = (n_informed * correlation + prior) / (n_informed + PRIOR_QUESTIONS)
    n_effective = n_responses / (1 + (k - 1) * correlation)
    return mean, *wilson(mean * n_effective, n_effective, n - 1)


def wilson(n_correct: float, n: float, df: float = np.inf) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927): inside [0, 1], sane at 0 and 1.

    Args:
        n_correct, n: number of successes and of trials, which may be fractions. No trials give [0, 1].
        df: degrees of freedom of Student's t; infinite: the standard normal.
    """
    from scipy.special import ndtri, stdtrit  # here, because the check of a configuration must not wait for scipy

    if n <= 0:
        return 0.0, 1.0
    p = n_correct / n
    z2 = float(ndtri(LEVEL) if np.isinf(df) else stdtrit(df, LEVEL)) ** 2
    # Multiplied by n: a tiny number of trials must not divide by zero.
    centre = (n * p + z2 / 2) / (n + z2)
    half = np.sqrt(z2 * (n * p * (1 - p) + z2 / 4)) / (n + z2)
    # Rounding must not put the estimate outside its own interval.
    return max(0.0, min(p, float(centre - half))), min(1.0, max(p, float(centre + half)))


def difference(before: Difficulty, after: Difficulty) -> tuple[float, float, float] | None:
    """Mean change of the pass rate over the questions that both have, and its 95 % interval: (mean, low, high).

    The interval is Student's t of the paired differences. Two questions are added to them, of which one is gained and
    one lost by half: without them a small benchmark on which nothing changed would have no interval at all. (For one
    response to a question that is the interval of Agresti & Min 2005.)

    Returns:
        None without a common question.
    """
    from scipy.special import stdtrit

    _, rows, others = np.intersect1d(before.question_Q, after.question_Q, return_indices=True)
    if len(rows) == 0:
        return None
    change_Q = after.pass_rate_Q[others] - before.pass_rate_Q[rows]
    n = len(rows) + 2
    centre = float(change_Q.sum()) / n
    variance = (float((change_Q**2).sum()) + 1) / n - centre**2
    half = float(stdtrit(n - 1, LEVEL)) * np.sqrt(variance / n)
    mean = float(change_Q.mean())
    return mean, max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
