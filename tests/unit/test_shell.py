"""The shell of every page: what becomes HTML, and that nothing in it reaches out of the file."""

import html.parser

from hpc_saidpo import picture
from hpc_saidpo.report import shell

HOSTILE = '<script src="https://example.org/x.js">alert(1)</script>\x1b[31m & "quoted"'
AWAY = ("src", "href", "xlink:href", "action", "data", "poster", "background", "srcset")


class Elements(html.parser.HTMLParser):
    """The elements of a page, each with its attributes; the texts between them; elements that were not closed."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append(text)


def panel(axis):
    axis.plot([0, 1], [1, 2], label=HOSTILE)
    axis.set(title="$x_1$")
    axis.legend()


def page():
    pictures = [shell.figure(picture.svg(name, panel), HOSTILE) for name in ("one", "two")]
    return shell.document(
        HOSTILE,
        shell.element("p", HOSTILE, kind="lead"),
        shell.facts({HOSTILE: HOSTILE}),
        shell.section(HOSTILE, shell.gallery(pictures), shell.bullets([HOSTILE]), shell.bullets([])),
        shell.table([HOSTILE, "n"], [[HOSTILE, 1], [shell.link("../run é/report.html", HOSTILE), 2]]),
        shell.folded(HOSTILE, shell.element("pre", HOSTILE)),
        meta={"figures": HOSTILE},
    )


def test_a_page_is_one_file_that_runs_and_loads_nothing():
    elements = Elements(page())
    assert elements.open == [] and "\x1b" not in page()
    tags = {tag for tag, _ in elements.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"} and "svg" in tags
    assert not [name for _, attributes in elements.elements for name in attributes if name.startswith("on")]
    addresses = {attributes[name] for _, attributes in elements.elements for name in AWAY if name in attributes}
    assert {address for address in addresses if not address.startswith("#")} == {"../run%20%C3%A9/report.html"}
    policy = next(a["content"] for _, a in elements.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "script-src" not in policy
    assert elements.texts.count(HOSTILE.replace("\x1b", "\\x1b")) >= 13  # shown as a text wherever it was put


def test_pictures_have_the_colours_of_the_page_and_names_of_their_own():
    text = picture.svg("one", panel)
    assert text == picture.svg("one", panel) != picture.svg("two", panel)
    assert text.startswith("<svg") and "currentColor" in text and "#010203" not in text and "#ffffff" not in text
    assert "$x_1$" in text and "<metadata" not in text
    found = Elements(page())
    names = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(names) == len(set(names)) and all(name.startswith(("one-", "two-")) for name in names)
    used = {attributes["xlink:href"][1:] for _, attributes in found.elements if "xlink:href" in attributes}
    assert used and used <= set(names)
