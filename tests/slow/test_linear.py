"""Everything that reads a row of a pool, a response or a reply takes CPU time in proportion to the length of the text.

Each reader gets each shape of hostile text, in growing lengths until it costs enough to be measured. Then twice the
text may cost 2.5 times as much. A reader that is still too quick to be measured at the largest length is
linear: with the square of such lengths it would take minutes.
"""

import gc
import gzip
import json
import time

import pytest

from hpc_saidpo import settings
from hpc_saidpo.grader.answers import exact, extract, fast, gold, latex, stated
from hpc_saidpo.pool import canonical, clean, columns, decontaminate, texts, wrappers
from hpc_saidpo.rollouts import steps
from hpc_saidpo.tags import reply

SMALLEST, LARGEST = 50_000, 100_000  # characters
MEASURABLE_S, MOST = 0.06, 2.5
LONG = "Find the sum of all odd numbers below ninety nine that are prime, and square it"
FILTER = decontaminate.Filter({"b": [("1", "What is 2 + 3?"), ("2", LONG), ("3", "a a a a a")]})


def row_of(text):
    try:
        return columns.make_mapper(settings.Columns(answer_from="boxed"))(
            {"question": text, "solution": text, "tags": text}
        )
    except columns.BadRow:
        return None


READERS = {
    "canonical": canonical.canonical,
    "hash": clean.key_of,
    "compared": lambda text: FILTER.compare([text]),
    "known": lambda text: decontaminate.Filter({"b": [("x", text)]}),
    "ends": lambda text: wrappers.Ends(text).follow("what is 2 + 3"),
    "row": row_of,
    "printed list": lambda text: texts.printed_list(f"[{text}]"),
    "answers": extract.candidates,
    "boxes": extract.boxed_apart,
    "scanner": latex.clean,
    "gold": lambda text: (fast.decide(text, "5"), fast.decide(text, text), gold.defects(text)),
    "ballot": exact.normalise,
    "program": stated.code_of,
    "tagged": stated.tagged,
    "steps": lambda text: (steps.count_steps(text), steps.count_steps(text, "marker")),
    "tags": lambda text: (reply.parse(text), reply.normalise(text)),
}
UNITS = (
    "\n", " ", "\\,", "a ", "1", "(", "{", "[", "(a,", "\\boxed{", "\\boxed{1} and ", "$", "\\frac", "\\text{", "'",
    '"a",', "**",
    "a\u0315\u0300", "\uff9e\u0334", "What is 2 + 3? ", "A. ", "answer is ", "```\n", "</think>", "<sup>", "&#1;",
)  # fmt: skip
SHAPES = {repr(unit): ("", unit, "") for unit in UNITS} | {
    "marks of one letter": ("a", "\u0315\u0300", ""),
    "digits of a character": ("&#", "1", ";"),
    "lines after a number": ("2 + 3", "\n", "x"),
    "one box": ("\\boxed{", "1 ", "}"),
    "nested": ("", "(x ", ")"),
}


def cpu_s(read, text) -> float:
    """Without the garbage collector: what it costs depends on the objects of all the tests before."""
    gc.disable()
    try:
        started = time.process_time()
        read(text)
        return time.process_time() - started
    finally:
        gc.enable()


def growth(read, make) -> float:
    """The cost of twice the text, as a multiple; 0 where no text costs enough to be measured."""
    length = SMALLEST
    while (once := cpu_s(read, make(length))) < MEASURABLE_S:
        length *= 2
        if length > LARGEST:
            return 0.0
    results = []
    for _ in range(5):  # another process may disturb one of them
        results.append(cpu_s(read, make(2 * length)) / once)
        if results[-1] <= MOST:
            break
        once = max(once, cpu_s(read, make(length)))
    return min(results)


@pytest.mark.parametrize("reader", READERS)
def test_twice_the_text_costs_twice_the_time(reader):
    read = READERS[reader]
    for name, (before, unit, after) in SHAPES.items():
        factor = growth(read, lambda n, b=before, u=unit, a=after: b + u * (n // len(u)) + a)
        assert factor <= MOST, f"{reader} of {name}: {factor:.1f} times the time for twice the text"


def test_text_with_many_known_questions(monkeypatch):
    words = [f"w{i}" for i in range(40_000)]
    questions = [" ".join(words[20 * i : 20 * i + 20]) for i in range(2000)]
    known = decontaminate.Filter({"b": [(str(i), text) for i, text in enumerate(questions)]})
    assert growth(lambda text: known.compare([text]), lambda n: " ".join(questions[: n // 100])) <= MOST


FILES = {
    "lines of jsonl": ("a.jsonl", lambda n: b'{"question": "q", "answer": "1"}\n' * (n // 30)),
    "one line of jsonl": ("a.jsonl.gz", lambda n: b'{"question": "' + b"x" * 20 * n + b'", "answer": "1"}\n'),
    "a list": ("a.json", lambda n: json.dumps([{"question": "q", "answer": "1"}] * (n // 30)).encode()),
    "a cut list": ("a.json", lambda n: b"[" + b'{"question": "q"}, ' * (n // 20)),
    "a header": ("a.csv", lambda n: ",".join(f"c{i}" for i in range(n // 8)).encode() + b",question,answer\n"),
    "one name twice": ("a.csv", lambda n: b"question,answer" + b",a" * (n // 2)),
    "one cell": ("a.csv", lambda n: b'question,answer\n"' + b"x\n" * 20 * n + b'",1\n'),
    "open quotes": ("a.csv", lambda n: b"question,answer\n" + b'"x,\n' * n),
    "keys": ("a.jsonl", lambda n: json.dumps({f"k{i}": i for i in range(n // 8)}).encode()),
}


@pytest.mark.parametrize("name, make", FILES.values(), ids=FILES)
def test_files_are_read_in_proportion_to_their_length(tmp_path, name, make):
    limits = settings.Limits(columns=10**9, line_mib=1000)

    def read(content: bytes) -> None:
        (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        try:
            for _ in clean.rows(tmp_path / name, "a", settings.Columns(), limits=limits):
                pass
        except clean.RunError:
            pass

    assert growth(read, make) <= MOST
