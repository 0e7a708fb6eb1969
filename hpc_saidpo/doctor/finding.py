"""One thing that was looked at, and how it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

OK, WARNING, FAILURE = "ok", "warning", "failure"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        state: ok, warning (the run will work, though not as well as it could) or failure (it will not).
        told: what was found, with its unit.
        remedy: what to do about it; "" when it is ok.
    """

    name: str
    state: str
    told: str
    remedy: str = ""


def judge(name: str, told: str, *, failure: str = "", warning: str = "") -> Finding:
    """A finding from its remedies: the first that is not empty tells the state."""
    state = FAILURE if failure else WARNING if warning else OK
    return Finding(name, state, told, failure or warning)


def table(findings: Sequence[Finding]) -> str:
    """For a console: a line for each, its remedy below."""
    widest = max(len(f.name) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.state:>7}  {f.name:<{widest}}  {f.told}")
        if f.remedy:
            lines.append(f"{'':>7}  {'':<{widest}}  → {f.remedy}")
    counts = [f"{sum(f.state == state for f in findings)} {state}" for state in (OK, WARNING, FAILURE)]
    return "\n".join([*lines, "", ", ".join(counts)])


def plain(findings: Sequence[Finding]) -> dict[str, dict[str, str]]:
    """For --json: name -> state, told, remedy."""
    return {f.name: {k: v for k, v in asdict(f).items() if k != "name"} for f in findings}
