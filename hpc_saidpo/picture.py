"""Figures of matplotlib: PNG files, and SVG for pages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES = (5.6, 3.5)
_INK, _GREY = "#010203", "#808081"  # no other colour of a figure; the ink becomes that of the page
_STYLE: Any = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.edgecolor"), _INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor", "savefig.facecolor"), "none"),
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.25,
    "grid.color": _GREY,
    "legend.frameon": False,
    "svg.fonttype": "none",  # texts stay texts: a smaller file, and words that can be searched for
    "text.parse_math": False,
}
_TAG = re.compile(r"<[^<>]*>")
_REFERENCE = re.compile(r'(\bid="|url\(#|href="#)')


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG. Names in it are no formulas, whatever characters they have."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    _take_literally(figure)
    with rc_context({"text.parse_math": False}):
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def svg(name: str, draw: Callable[[Axes], object], inches: tuple[float, float] = PANEL_INCHES) -> str:
    """Draw one panel as an SVG element for a page: its lines and texts have the page's colour, in light and in dark.

    The same panel gives the same text.

    Args:
        name: the picture's name in its page, of letters, digits and "-": no two pictures of a page share one.
        draw: draws into the axes. Names are no formulas, whatever characters they have.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # without pyplot: no display, no global state, half the time to import

    buffer = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.subplots())
        _take_literally(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return _for_page(buffer.getvalue(), name)


def _take_literally(figure: Figure) -> None:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(visible(text.get_text()))
        text.set_parse_math(False)


def _for_page(whole: str, name: str) -> str:
    """Return the <svg> element of a file, without its size in points; its identifiers begin with the name."""
    element = re.sub(r"<metadata>.*?</metadata>", "", whole[whole.index("<svg") :], count=1, flags=re.DOTALL)
    opening, rest = element.split(">", 1)
    opening = re.sub(r' (?:width|height)="[^"]*"', "", opening)
    inner = _TAG.sub(lambda tag: _REFERENCE.sub(rf"\g<1>{name}-", tag[0]), rest)
    return visible(f'{opening} role="img">{inner}'.replace(_INK, "currentColor"), kept="\n\t")
