"""The shell of every HTML page: one file without scripts or network, light and dark, for narrow and wide screens.

A text becomes `Html` by a function of this module only; every other text is escaped, wherever it is put.
"""

from __future__ import annotations

import html
import os
import string
from collections.abc import Collection, Iterable, Mapping, Sequence

from ..errors import visible

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#d5dae0;--fill:#f3f5f7;--accent:#0b62c4}
@media(prefers-color-scheme:dark){:root{--paper:#14171a;--ink:#e4e7ea;--soft:#9aa3ad;--line:#343a41;--fill:#1e2328;
--accent:#6fb1ff}}
*{box-sizing:border-box}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:96em;margin:0 auto;
padding:1em clamp(.8em,3vw,2.5em) 3em;overflow-wrap:anywhere}
h1{font-size:1.5em;line-height:1.25;margin:.4em 0}h2{font-size:1.2em;margin:2em 0 .5em;
border-bottom:1px solid var(--line);padding-bottom:.2em}h3{font-size:1em;margin:1.2em 0 .3em}
p,ul{max-width:60em;margin:.5em 0}ul{padding-left:1.3em}a{color:var(--accent)}
.lead{font-size:1.2em;line-height:1.4;margin:.6em 0}.soft,figcaption{color:var(--soft);font-size:.9em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15em 1em;margin:.8em 0}
dt{color:var(--soft)}dd{margin:0;min-width:0}
.wide{overflow-x:auto;margin:.8em 0;max-height:40em}table{border-collapse:collapse;font-size:.93em}
td,th{border-bottom:1px solid var(--line);padding:.25em .7em;text-align:right;white-space:nowrap;vertical-align:top}
td,th{overflow-wrap:break-word}td.text,th.text{text-align:left}td.text{white-space:normal;min-width:9em}
thead th{background:var(--fill);position:sticky;
top:0;white-space:normal;vertical-align:bottom}
.gallery,.beside{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,27em),1fr));gap:1.2em;
margin:.8em 0}.beside{gap:0 1.2em;grid-template-columns:repeat(auto-fit,minmax(min(100%,27em),1fr))}
.key{margin-right:1em;white-space:nowrap}
.key i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:2px}
.heat{display:block;margin:-.1em -.4em;padding:.1em .4em;border-radius:3px}
figure{margin:0;min-width:0;max-width:40em}figure svg{width:100%;height:auto;display:block}
pre{font:13px/1.45 ui-monospace,monospace;white-space:pre-wrap;background:var(--fill);padding:.7em;margin:.3em 0;
border-radius:4px;max-height:40em;overflow:auto}code{font-family:ui-monospace,monospace;font-size:.93em}
summary{cursor:pointer;color:var(--accent);margin:.5em 0}
@media(max-width:40em){dl{grid-template-columns:1fr}dd{margin-bottom:.4em}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--fill:#f3f3f3;--accent:#000}
body{font-size:10pt;padding:0}.wide,pre{overflow:visible;max-height:none}figure,tr,pre,article{break-inside:avoid}
td,th{white-space:normal;padding:.15em .4em}h2,h3{break-after:avoid}}
"""
# A browser refuses everything that is not in the file, whatever text comes into it: scripts, too.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"

_IN_ADDRESS = string.ascii_letters + string.digits + "-._~/"


class Html(str):
    """A text that is HTML already."""


def escape(text: object) -> Html:
    """Return a text as HTML: markup and control characters become visible. `Html` stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(visible(str(text))))


def joined(*parts: object) -> Html:
    """Return several parts, one after the other."""
    return Html("\n".join(map(escape, parts)))


def element(tag: str, *parts: object, kind: str = "") -> Html:
    """Return an element: `<tag class="kind">parts</tag>`. Tag and kind are words of this program."""
    return Html(f"<{tag}{f' class={kind!r}' if kind else ''}>{joined(*parts)}</{tag}>")


def document(title: str, *parts: object, meta: Mapping[str, str] | None = None) -> str:
    """Return a whole page.

    Args:
        title: heading of the page, and its name in a browser.
        parts: its content, in order.
        meta: names and values for programs that read the page; a browser does not show them.
    """
    named = (f'<meta name="{escape(name)}" content="{escape(value)}">' for name, value in (meta or {}).items())
    head = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        *named,
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head><body>",
        element("h1", title),
    ]
    return "\n".join([*head, joined(*parts), "</body></html>\n"])


def section(title: str, *parts: object) -> Html:
    """Return a section with its heading."""
    return element("section", element("h2", title), *parts)


def link(path: str, text: object) -> Html:
    """Return a link to another file. Its path, relative to the page, can become no address of another kind."""
    address = "".join(chr(b) if chr(b) in _IN_ADDRESS else f"%{b:02X}" for b in os.fsencode(path))
    return Html(f'<a href="{address}">{escape(text)}</a>')


def bullets(items: Iterable[object]) -> Html:
    """Return a list of lines; nothing for no line."""
    lines = [element("li", item) for item in items]
    return element("ul", *lines) if lines else Html("")


def facts(values: Mapping[str, object]) -> Html:
    """Return names with their values, a line each."""
    return element(
        "dl", *(element(tag, text) for pair in values.items() for tag, text in zip(("dt", "dd"), pair, strict=True))
    )


def table(header: Sequence[object], rows: Iterable[Sequence[object]], texts: Collection[int] = (0,)) -> Html:
    """Return a table, which scrolls where the screen is narrow.

    Args:
        texts: numbers of the columns that hold words; the others hold figures, and are aligned on the right.
    """

    def row(tag: str, cells: Sequence[object]) -> Html:
        return element("tr", *(element(tag, cell, kind="text" if i in texts else "") for i, cell in enumerate(cells)))

    body = element("tbody", *(row("td", cells) for cells in rows))
    return element("div", element("table", element("thead", row("th", header)), body), kind="wide")


def figure(svg: str, caption: object = "") -> Html:
    """Return a picture (`picture.svg`), with a sentence below it if there is one."""
    return element("figure", Html(svg), *([element("figcaption", caption)] if caption else []))


def gallery(figures: Iterable[Html]) -> Html:
    """Return figures side by side, as many as the screen has room for."""
    return element("div", *figures, kind="gallery")


def folded(summary: object, *parts: object) -> Html:
    """Return parts that a reader opens by a click on their summary."""
    return element("details", element("summary", summary), *parts)
