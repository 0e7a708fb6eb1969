"""The sections of a run's page: figures of its iterations -> HTML. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluate.table import interval, percent, points
from ..progress import duration
from .charts import GREEN, GREY, ORANGE, Line, bars, plot
from .facts import Answer, Example, Facts
from .shell import Html, bullets, element, folded, gallery, joined, section, table

SHOWN_CHARS = 4000  # of a response or a question
RANKS = 16  # that are shown one by one


def accuracy(about: Facts) -> Html:
    """Accuracy per benchmark with its intervals: a picture and a table."""
    outcome = about.outcome
    lines = []
    for name, before in outcome.before.items():
        scored = [(r["iteration"] + 1, r["scores"][name]) for r in outcome.iterations if name in r["scores"]]
        scores = [(x, s) for x, s in [(0, before), *scored] if s["accuracy"] is not None]
        ends = [[100 * s[end] for _, s in scores] for end in ("accuracy", "low95", "high95")]
        lines.append(Line(name, [x for x, _ in scores], *ends))
    if not lines:
        return section("Accuracy", element("p", "No benchmark is set: evaluate.benchmarks names them."))
    rows = [
        [name, interval(gain.before["accuracy"], gain.before["low95"], gain.before["high95"]),
         interval(gain.after["accuracy"], gain.after["low95"], gain.after["high95"]),
         f"{points(gain.change)} [{points(gain.low95)}, {points(gain.high95)}]",
         f"{gain.after['n_questions']:,} × {gain.after.get('n_samples', 1)}"]
        for name, gain in about.gains.items()
    ]  # fmt: skip
    header = ["benchmark", "before", "now", "change, points", "questions × responses"]
    caption = "Accuracy after each round of training, with 95 % intervals"
    note = "The change is measured question by question, so its interval is narrower than those of both accuracies."
    shown = [table(header, rows), element("p", note, kind="soft")] if rows else []
    return section("Accuracy", gallery([plot(caption, lines, "rounds of training", "%")]), *shown)


def questions(about: Facts) -> Html:
    """The fate of the explored questions, and the pair yield beside that of uniform sampling."""
    rows = {
        f"iteration {r['iteration']}": {
            "too easy": r["explored_too_easy_share"],
            "in the band": r["pair_yield"],
            "too hard": r["explored_too_hard_share"],
        }
        for r in about.iterations
        if "explored_too_easy_share" in r
    }
    yields = [(r["iteration"], 100 * r["pair_yield"]) for r in about.iterations if "pair_yield" in r]
    uniform = [(r["iteration"], r["probe_usable_share"], r.get("probe_questions", 0)) for r in about.iterations
               if r.get("probe_usable_share") is not None]  # fmt: skip
    half = [196 * math.sqrt(share * (1 - share) / max(n, 1)) for _, share, n in uniform]
    share = [100 * share for _, share, _ in uniform]
    lines = [
        Line("the draw of this run", [t for t, _ in yields], [y for _, y in yields]),
        Line("uniform sampling (the probe)", [t for t, *_ in uniform], share,
             [max(0.0, s - h) for s, h in zip(share, half, strict=True)],
             [min(100.0, s + h) for s, h in zip(share, half, strict=True)]),
    ]  # fmt: skip
    caption = "Pair yield: questions in the band, of all explored. The probe is a uniform sample of the pool"
    shown = [bars("Explored questions by difficulty: only those in the band make pairs", rows,
                  {"too easy": GREY, "in the band": GREEN, "too hard": ORANGE}),
             plot(caption, lines, "iteration", "%")]  # fmt: skip
    return section("Where the questions went", gallery(shown), _funnel(about.iterations))


def _funnel(iterations: Sequence[Mapping[str, Any]]) -> Html:
    header = ["iteration", "probed", "probe pass rate", "explored", "pair yield", "pairs", "cut", "ungradable"]
    rows = [
        [r["iteration"], _count(r.get("probe_questions")), percent(r.get("probe_pass_rate")),
         _count(r.get("explored_questions")), percent(r.get("pair_yield")), _count(r.get("pairs")),
         percent(r.get("truncated_share")), percent(r.get("ungradable_share"))]
        for r in iterations
    ]  # fmt: skip
    return table(header, rows) if rows else Html("")


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def training(about: Facts) -> Html:
    """Figures of the optimizer steps, on axes of their own."""
    steps = [step for t in sorted(about.steps) for step in about.steps[t]]
    if not steps:
        return Html("")
    at = list(range(len(steps)))
    borders = [sum(len(about.steps[t]) for t in sorted(about.steps) if t < u) - 0.5 for u in sorted(about.steps)][1:]

    def line(name: str, key: str, times: float = 1.0) -> Line:
        values = [step.get(key) for step in steps]
        return Line(name, at, [None if v is None else times * v for v in values])

    def picture(caption: str, *lines: Line, unit: str = "", marks: dict[str, float] | None = None) -> Html:
        return plot(caption, lines, "optimizer step", unit, marks, borders)

    is_split = all("preference_loss" in step for step in steps)
    loss = about.setting("dpo.loss", "sigmoid")
    is_dpo, nll = loss != "ipo", about.setting("dpo.nll", 0)
    has_ln2 = is_dpo and (is_split or not nll)
    words = "without the NLL of chosen responses" if is_split else f"with {nll:g} × the NLL of chosen responses"
    ends = ": ln 2 is that of a policy that has learnt nothing" if has_ln2 else ""
    shown = [
        picture(f"Loss ({loss}), {words}{ends}", line("loss", "preference_loss" if is_split else "loss"),
                marks={"ln 2": math.log(2)} if has_ln2 else None),
        picture("Margin: reward of the chosen response above that of the rejected one", line("m", "rewards/margins")),
        picture("Pairs whose chosen response has the higher reward", line("a", "rewards/accuracies", 100), unit="%",
                marks={"chance": 50.0}),
        picture("Log-probability of a response, nats", line("chosen", "logps/chosen"),
                line("rejected", "logps/rejected"), line("chosen, reference", "ref_logps/chosen"),
                line("rejected, reference", "ref_logps/rejected")),
        picture("Gradient norm before clipping", line("g", "grad_norm")),
    ]  # fmt: skip
    return section("DPO", gallery(shown), element("p", "Dotted lines separate the iterations.", kind="soft"))


def work(about: Facts) -> Html:
    """Time and tokens by stage and rank."""
    total = sum(place.seconds for place in about.places.values())
    rows = []
    for name, place in about.places.items():
        speed = f"{place.tokens / place.seconds:,.0f}" if place.tokens and place.seconds else "-"
        tokens = f"{place.tokens:,.0f}" if place.tokens else "-"
        rows.append([name, duration(place.seconds), percent(place.seconds / total if total else 0), tokens, speed,
                     _spread(place.ranks)])  # fmt: skip
    header = ["stage", "time", "share", "tokens", "tokens/s", "busy time of a rank: least, mean, most"]
    return section("Time and tokens", table(header, rows), _ranks(about)) if rows else Html("")


def _spread(ranks: Sequence[tuple[float, float]]) -> str:
    busy = [seconds for seconds, _ in ranks]
    if not busy:
        return "-"
    return ", ".join(duration(value) for value in (min(busy), sum(busy) / len(busy), max(busy)))


def _ranks(about: Facts) -> Html:
    """All stages together, by rank."""
    n = max((len(place.ranks) for place in about.places.values()), default=0)
    if n < 2:
        return Html("")
    sums = [[sum(p.ranks[r][i] for p in about.places.values() if r < len(p.ranks)) for i in (0, 1)] for r in range(n)]
    shown = sorted(range(n), key=lambda r: sums[r][0])
    shown = shown if n <= RANKS else shown[: RANKS // 2] + shown[-RANKS // 2 :]
    rows = [[r, duration(sums[r][0]), f"{sums[r][1]:,.0f}"] for r in sorted(shown)]
    note = f"The {RANKS} ranks with the least and the most busy time, of {n}." if n > RANKS else ""
    return joined(element("h3", "All stages by rank"), table(["rank", "busy time", "tokens"], rows), note)


def changes(about: Facts) -> Html:
    """Settings that were changed on the way."""
    if not about.changes:
        return Html("")

    def words(value: Any) -> str:
        return "(none)" if value is None else str(value)

    rows = [[c.since, c.key, words(c.old), words(c.new)] for c in about.changes]
    note = "Each iteration was computed with the values of its time (run.accept_changes)."
    return section(
        "Changed on the way", table(["since iteration", "setting", "before", "after"], rows, (1, 2, 3)), note
    )


def signatures(about: Facts) -> Html:
    """Failure signatures with their remedies; one that was seen several times as it was seen last."""
    seen: dict[str, list[tuple[int, str]]] = {}
    for record in about.outcome.iterations:
        for text in record["signatures"]:
            seen.setdefault(text.partition(":")[0], []).append((record["iteration"], text))
    found = []
    for times in seen.values():
        numbers = ", ".join(str(t) for t, _ in times)
        found.append(f"iteration{'s' * (len(times) > 1)} {numbers}: {times[-1][1]}")
    found += [about.outcome.stopped] if about.outcome.stopped else []
    none = "None was seen." if about.outcome.iterations else "No iteration is finished, so none could be seen."
    return section("Failure signatures", bullets(found) if found else element("p", none))


def examples(about: Facts) -> Html:
    """Some questions with the response of before and after, side by side."""
    origin, shown = about.examples
    if not shown:
        return Html("")
    return section("What the model answered", element("p", origin, kind="soft"), *map(_example, shown))


def _example(example: Example) -> Html:
    both = [(name, answer) for name, answer in (("before", example.before), ("after", example.after)) if answer]
    both = both if len(both) > 1 else [("response", answer) for _, answer in both]
    title = element("h3", element("code", example.id), " → ".join(answer.kind for _, answer in both))
    gold = element("p", element("strong", "gold answer"), element("code", _cut(example.gold)))
    answers = element("div", *(_answer(name, answer) for name, answer in both), kind="beside")
    return element("article", title, element("pre", _cut(example.question)), gold, answers)


def _answer(name: str, answer: Answer) -> Html:
    answered = "" if answer.extracted is None else f", answer {_cut(answer.extracted)}"
    return element(
        "div", element("p", f"{name}: {answer.kind}{answered}", kind="soft"), element("pre", _cut(answer.text))
    )


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} ... ({len(text):,} characters)"


def configuration(about: Facts) -> Html:
    """The whole configuration as YAML, folded."""
    return section("Configuration", folded("the resolved configuration (config.yaml)",
                                           element("pre", about.configuration)))  # fmt: skip
