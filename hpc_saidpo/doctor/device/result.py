"""The figures and the result of one check of a device."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

PASS, FAIL, SKIP = "PASS", "FAIL", "SKIP"
Value = float | int | str | None


class Skipped(Exception):
    """A check cannot be made here; the message is the reason."""


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        state: PASS, FAIL or SKIP.
        text: the reason of a failure or a skip; the main figures.
        seconds: duration of the check.
        figures: all figures by name.
    """

    name: str
    state: str
    text: str
    seconds: float
    figures: dict[str, Value]

    def line(self, width: int) -> str:
        """The result on one line; the name is padded to `width` characters."""
        return f"{self.state}  {self.name:<{width}}  {self.seconds:5.1f} s  {self.text}"

    def flat(self) -> dict[str, Value]:
        """The result as plain values: NAME.state, NAME.text, NAME.seconds, and NAME.FIGURE for each figure."""
        whole = {"state": self.state, "text": self.text, "seconds": round(self.seconds, 2), **self.figures}
        return {f"{self.name}.{key}": value if _is_finite(value) else None for key, value in whole.items()}


def _is_finite(value: Value) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


@dataclass
class Figures:
    """The figures of a check while it runs.

    Attributes:
        values: all figures by name.
        shown: the main ones, as text.
        faults: what is wrong; a check with a fault fails.
    """

    values: dict[str, Value] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(
        self, name: str, value: float | None, unit: str = "", *, most: float | None = None, show: bool = True
    ) -> None:
        """Add a figure.

        Args:
            most: its largest allowed value; a larger one, or one that is not a number, is a fault.
            show: the figure belongs to the main ones.
        """
        self.values[name] = value
        if show and value is not None:
            self.shown.append(f"{name.replace('_', ' ')} {value:.3g}{unit}")
        if most is not None and not (value is not None and value <= most):
            shown = "none" if value is None else f"{value:.3g}"
            self.faults.append(f"{name.replace('_', ' ')} is {shown}{unit}, at most {most:g}{unit} is allowed")

    def note(self, name: str, text: str, *, show: bool = True) -> None:
        """Add a text."""
        self.values[name] = text
        if show:
            self.shown.append(text)

    def require(self, holds: bool, fault: str) -> None:
        """Add a fault unless a condition holds."""
        if not holds:
            self.faults.append(fault)

    def text(self) -> str:
        """The faults, then the main figures, on one line."""
        return " | ".join(part for part in ("; ".join(self.faults), ", ".join(self.shown)) if part)
