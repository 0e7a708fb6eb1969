"""The top of a run's page: one sentence of verdict, why the run ended, and its facts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..evaluate.table import percent, points
from ..progress import duration
from .facts import COMPLETE, ENDED, INTERRUPTED, PAUSED, RUNNING, Facts, Gain
from .shell import Html, element, escape, facts, joined

STATES = {
    RUNNING: "In progress",
    COMPLETE: "Complete",
    PAUSED: "Paused",
    ENDED: "Ended by a failure signature",
    INTERRUPTED: "Interrupted",
}


def top(about: Facts) -> Html:
    """Return the top of the page."""
    parts = [element("p", Html(escape(sentence(about)).replace(" %", "&nbsp;%")), kind="lead")]
    if about.state != COMPLETE:
        state = element("strong", f"{STATES[about.state]}:")
        parts.append(element("p", state, Html(escape(about.reason).replace("\n", "<br>"))))
    return joined(*parts, facts(dict(_facts(about))))


def sentence(about: Facts) -> str:
    """Return the verdict: what the finished iterations changed."""
    n = len(about.outcome.iterations)
    done = f"{n} iteration{'s' * (n != 1)}"
    if not n:
        return "No iteration is finished, so there is no verdict yet."
    if not about.gains:
        where = "no benchmark has been evaluated after training" if about.outcome.before else "no benchmark is set"
        return f"{done} are done, and {where} (evaluate.benchmarks): accuracy is unknown."
    return f"{done} of training {'; '.join(_change(name, gain) for name, gain in about.gains.items())}."


def _change(name: str, gain: Gain) -> str:
    ends = f"95 % interval {points(gain.low95)} to {points(gain.high95)}"
    levels = f"from {percent(gain.before['accuracy'])} to {percent(gain.after['accuracy'])}"
    size = f"{points(abs(gain.change), '')} points"
    if gain.low95 > 0 or gain.high95 < 0:
        verb = "raised" if gain.change > 0 else "lowered"
        return f"{verb} the accuracy on {name} by {size} ({ends}), {levels}"
    way = "up" if gain.change >= 0 else "down"
    return f"made no clear difference on {name}: {size} {way} ({ends}), {levels}"


def generated(about: Facts) -> float:
    """Return the number of generated tokens: of the rollouts of every stage, as far as it is known."""
    known = [place.tokens for name, place in about.places.items() if not name.endswith("/policy")]
    return sum(known) or sum(record.get("rollout_tokens", 0) for record in about.outcome.iterations)


def _facts(about: Facts) -> Iterator[tuple[str, object]]:
    first, last = (about.starts[0], about.starts[-1]) if about.starts else ({}, {})
    yield "model", about.setting("policy.path", about.outcome.policy_path)
    yield "pool", _pool(about)
    yield "sampling", f"{about.setting('sampler.rule', '?')}, K = {about.setting('rollouts.k', '?')} rollouts"
    yield "date", f"{str(first.get('started', '?'))[:16].replace('T', ' ')} to {about.written}"
    seconds = sum(place.seconds for place in about.places.values())
    starts = f", {len(about.starts)} starts" if len(about.starts) > 1 else ""
    yield "time", f"{duration(seconds)} of work on {_machine(last)}{starts}"
    yield "tokens", f"{generated(about):,.0f} generated"
    packages = last.get("packages")
    version = packages.get("hpc_saidpo", "?") if isinstance(packages, Mapping) else "?"
    yield "program", f"hpc_saidpo {version}, commit {last.get('commit') or 'unknown'}"
    if last.get("command"):
        yield "command", element("code", last["command"])
    if about.outcome.policy_path:
        yield "newest policy", element("code", about.outcome.policy_path)


def _pool(about: Facts) -> str:
    pool = about.setting("pool", {})
    path = pool.get("path") if isinstance(pool, Mapping) else None
    named = ", ".join(map(str, path)) if isinstance(path, list) else path
    kind = pool.get("kind", "") if isinstance(pool, Mapping) else ""
    n = sum(about.outcome.health.get("sizes", []))
    return f"{named or kind or '?'}{f', {n:,} questions' if n else ''}"


def _machine(start: Mapping[str, Any]) -> str:
    ranks, gpus = start.get("world_size", 1), start.get("gpus")
    device = ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else str(start.get("device", "?"))
    hosts = start.get("hosts")
    n_hosts = len(hosts) if isinstance(hosts, list) else 1
    nodes = f" of {n_hosts} nodes" if n_hosts > 1 else ""
    return f"{ranks} rank{'s' * (ranks != 1)}{nodes}, {device}"
