"""The result of one preflight check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import shown
from ..layout import paragraph

SHOWN_CHARS = 2000  # of a finding, in the table
OK, WARNING, FAILURE = "ok", "warning", "failure"


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: name of the check.
        state: ok, warning (the run works, but not as well as it could) or failure (the run will not work).
        text: the measured or detected value, with its unit.
        remedy: the action that mends the problem; "" when the state is ok.
    """

    name: str
    state: str
    text: str
    remedy: str = ""


def judge(name: str, text: str, *, failure: str = "", warning: str = "") -> Finding:
    """Make a finding from its remedies. The first remedy that is not empty decides the state; without one it is ok."""
    state = FAILURE if failure else WARNING if warning else OK
    return Finding(name, state, text, failure or warning)


def table(findings: Sequence[Finding], width: int = 0) -> str:
    """Format findings for a console: one line each, with the remedy on the next line.

    Args:
        width: of the terminal, in characters; 0: any.
    """
    widest = max(len(f.name) for f in findings)
    lines = []
    for f in findings:
        lines.append(paragraph(shown(f.text, SHOWN_CHARS), width, f"{f.state:>7}  {f.name:<{widest}}  "))
        if f.remedy:
            lines.append(paragraph(shown(f.remedy, SHOWN_CHARS), width, f"{'':>7}  {'':<{widest}}  → "))
    n_of = {state: sum(f.state == state for f in findings) for state in (OK, WARNING, FAILURE)}
    counts = [f"{n} {state}" + "s" * (n != 1 and state != OK) for state, n in n_of.items()]
    return "\n".join([*lines, "", ", ".join(counts)])


def plain(findings: Sequence[Finding]) -> dict[str, dict[str, str]]:
    """Convert findings to plain values for --json: name -> state, told (the text), remedy.

    The key `told` is part of the format of the file, which scripts of users read.
    """
    return {f.name: {"state": f.state, "told": f.text, "remedy": f.remedy} for f in findings}
