"""Figures of matplotlib as PNG files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from .errors import visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def png(figure: Figure) -> bytes:
    """Draw a figure as PNG. Names in it are no formulas, whatever characters they have."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    buffer = io.BytesIO()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(visible(text.get_text()))
        text.set_parse_math(False)
    with rc_context({"text.parse_math": False}):
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
