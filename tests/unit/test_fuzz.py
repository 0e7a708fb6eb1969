"""Inputs that nobody has thought of: the program reports each in a message, and writes nothing but its own folders.

Every example is the same in each run of the tests. The functions of the product are called in this process.
"""

import contextlib
import gzip
import json
import os
import signal
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from submit_freeze import freeze
from submit_sweep import read_sweep
from support import mini_run
from support.pools import load

from hpc_saidpo import settings as groups
from hpc_saidpo.cli import compose, grade
from hpc_saidpo.compare.page import page
from hpc_saidpo.compare.paired import pair
from hpc_saidpo.compare.read import read_runs
from hpc_saidpo.compare.tables import text
from hpc_saidpo.errors import RunError
from hpc_saidpo.grader.answers import exact, extract, fast, stated
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.grader.self_check import self_check
from hpc_saidpo.grader.verifiers import VERIFIERS
from hpc_saidpo.pool import canonical
from hpc_saidpo.records import Question
from hpc_saidpo.report.status import read_states, table
from hpc_saidpo.rollouts.steps import count_steps
from hpc_saidpo.store.check import check
from hpc_saidpo.store.hashes import Hashes
from hpc_saidpo.store.layout import newest_policy
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.manifest import text_of
from hpc_saidpo.tags import asking, batch, endpoint

HANG_S = 20
PIECES = (
    "a", " ", "\n", "1", "7" * 4400, "\x00", "\x1b[2J", "\u202e", "\ud800", "é", "\uff9e\u0315", "{", "}", "(", "[",
    "]", "\\", "\\boxed{", "\\frac{1}{", "$", "&#" + "1" * 5000 + ";", "1e9999", "10^{9999}", "x" * 1100, ",", ";",
    '"', "'", "####", "</think>", "<answer>", "answer is", "\\text{A}", "1/0", "\\pm", "\\begin{pmatrix}", "\\infty",
    "_{10}", "twelve", "tags:", "```", "- ", "https://", "../..", "~", "${run.root}", "${oc.env:HOME}", "=", ".", "/",
    "%", "null", "true", "-1", "NaN", "\x1f", "\ufeff", "\r",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
NUMBERS = st.sampled_from((0, 1, -1, 10**18, 10**4200, 1.5, float("inf"), float("nan"), 1e308))
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NAMES = ("question", "answer", "id", "solution", "subject", "level", "tags", "alt_answers", "verifier", "entry")


def some(n: int):
    """Make a test of n examples, the same ones in every run."""
    return settings(
        max_examples=n,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # the first failure is told as it is: to shrink it takes minutes
        report_multiple_bugs=False,
        suppress_health_check=[*HealthCheck],
    )


@contextlib.contextmanager
def folder():
    """An empty working folder; what is written outside of its `runs` is an error, and so is a hang."""

    def hang(*_):
        raise AssertionError("it hangs")

    before, handler = Path.cwd(), signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        signal.alarm(HANG_S)
        try:
            yield Path(name)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
            os.chdir(before)


def tree(place: Path) -> list[str]:
    return sorted(
        str(path.relative_to(place)) for path in place.rglob("*") if path.relative_to(place).parts[0] != "runs"
    )


@contextlib.contextmanager
def messages_only(place: Path):
    """Whatever happens is told in one message, and no file appears outside of `runs`."""
    before = tree(place)
    try:
        yield
    except RunError as error:
        assert str(error).strip()
    assert tree(place) == before


def dumped(value) -> bytes:
    return json.dumps(value).encode()


def as_csv(rows: list[dict], separator: str) -> bytes:
    cells = [[str(row.get(name, "")) for name in NAMES[:5]] for row in rows]
    lines = [NAMES[:5], *cells]
    return "\n".join(separator.join(line) for line in lines).encode("utf-8", "surrogatepass")


def as_table(rows: list[dict]) -> pyarrow.Table:
    texts = [{name: json.dumps(row.get(name)) if row.get(name) is not None else None for name in NAMES} for row in rows]
    return pyarrow.Table.from_pylist(texts, pyarrow.schema([(name, pyarrow.string()) for name in NAMES]))


def parquet(rows: list[dict]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(as_table(rows), sink)
    return sink.getvalue().to_pybytes()


def arrow(rows: list[dict]) -> bytes:
    sink, content = pyarrow.BufferOutputStream(), as_table(rows)
    with pyarrow.ipc.new_stream(sink, content.schema) as writer:
        writer.write_table(content)
    return sink.getvalue().to_pybytes()


FORMATS = {
    "p.jsonl": lambda rows: b"\n".join(map(dumped, rows)),
    "p.json": dumped,
    "p.json.gz": lambda rows: gzip.compress(dumped({"rows": rows})),
    "p.csv": lambda rows: as_csv(rows, ","),
    "p.tsv": lambda rows: as_csv(rows, "\t"),
    "p.jsonl.gz": lambda rows: gzip.compress(b"\n".join(map(dumped, rows))),
    "p.parquet": parquet,
    "p.arrow": arrow,
}
NO_JSON = st.sampled_from((b"", b"\xff", b"{", b"[" * 5000, b"1" * 5000, b"\x00"))
ROWS = st.lists(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), max_size=4)
DAMAGE = st.tuples(st.floats(0, 1), st.binary(max_size=4), st.booleans())
GOOD = {"question": "What is 1 + 1?", "answer": "2"}


def damaged(content: bytes, damage) -> bytes:
    share, inserted, is_cut = damage
    at = int(share * len(content))
    return content[:at] + inserted + (b"" if is_cut else content[at + len(inserted) :])


@pytest.mark.parametrize("name", FORMATS)
@some(12)
@given(rows=ROWS, damage=st.none() | DAMAGE)
def test_pool_files(name, rows, damage):
    with folder() as place:
        content = FORMATS[name]([GOOD, *rows])
        (place / name).write_bytes(damaged(content, damage) if damage else content)
        with messages_only(place):
            load(place, place / name, on_bad="skip", columns=groups.Columns(rows="rows" if "json.gz" in name else None))


@some(60)
@given(TEXTS, TEXTS)
def test_gold_answers_and_responses(gold, response):
    extract.boxed_apart(response), stated.code_of(response), stated.tagged(response), count_steps(response)
    canonical.canonical(response), exact.normalise(gold)
    answers = [None, *extract.candidates(response), *extract.candidates(f"\\boxed{{{gold}}}")]
    assert all(fast.decide(gold, answer) is None or fast.decide(gold, answer).reason for answer in answers)
    assert self_check([("q", gold)]).n == 1


@some(40)
@given(TEXTS, TEXTS)
def test_judges(gold, response):
    class InThisProcess(Grader):
        def request(self, *message):
            raise ValueError("there is no worker here")

    for verifier in ("math", "exact", "reasoning_gym"):
        question = Question("q", "?", gold, alt_answers=(response,), verifier=verifier, entry=gold)
        assert InThisProcess().judge(response, question).reason.isprintable()
        ballot = VERIFIERS[verifier].ballot(response)
        assert ballot is None or isinstance(ballot, str)


@some(60)
@given(VALUES, TEXTS)
def test_replies(value, reply):
    for task in (asking.make_tagging(), asking.make_sorting(["algebra", "number theory"])):
        assert all(name.isprintable() for name in task.read(reply))
    with contextlib.suppress(ValueError):
        assert isinstance(
            endpoint.reply_of(json.loads(json.dumps({"choices": [{"message": {"content": value}}]}))), str
        )
    with contextlib.suppress(ValueError):
        endpoint.reply_of(value)
    endpoint.retry_after_s(reply)


LINES = st.lists(st.one_of(VALUES.map(dumped), TEXTS.map(lambda t: t.encode("utf-8", "surrogatepass"))), max_size=4)


@some(25)
@given(LINES, VALUES, TEXTS)
def test_files_of_answers_and_of_responses(lines, value, response):
    row = {"prediction_text": response, "gold": response, "verifier": value, "alt_answers": value, "entry": value}
    with folder() as place:
        for content in (b"\n".join(lines), dumped(row), dumped({"id": "a", "content": value, "response": value})):
            (place / "a.jsonl").write_bytes(content)
            with messages_only(place):
                batch.read([str(place / "a.jsonl")], 1)
            with messages_only(place):
                for number, read in grade.rows(place / "a.jsonl", 1):
                    grade.question_of(read, f"a:{number}")


def signed(manifest: dict) -> dict:
    """A manifest whose hash is right: everything in it is read."""
    return {**json.loads(text_of(manifest.get("files"))), **{k: v for k, v in manifest.items() if k != "sha256"}}


FACTS = st.dictionaries(st.sampled_from(("bytes", "sha256", "size")), VALUES, max_size=3)
LISTED = st.one_of(
    VALUES, st.dictionaries(TEXTS | st.sampled_from(("probe.h5", "../../x", "/etc/passwd")), FACTS | VALUES, max_size=3)
)
MANIFESTS = st.fixed_dictionaries({}, optional={"schema_version": VALUES, "files": LISTED, "sha256": VALUES})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with every kind of file."""
    place = tmp_path_factory.mktemp("runs")
    mini_run.work(place)
    return place / "run"


@contextlib.contextmanager
def instead(path: Path, content: bytes):
    """Another content of a file of the run, for a moment."""
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        yield
    finally:
        path.unlink() if before is None else path.write_bytes(before)


@some(40)
@given(content=st.one_of(MANIFESTS.map(signed).map(dumped), MANIFESTS.map(dumped), VALUES.map(dumped), NO_JSON))
def test_manifests(run, content):
    stage = run / "iter-000" / "draw"
    with instead(stage / "DONE", content), messages_only(run):
        check(run)
        Hashes(run.parent / ".hashes.json").of([stage / "draw.h5"])
        mini_run.work(run.parent)


@some(40)
@given(
    st.sampled_from(
        ("progress.json", "env.json", "failure.json", "metrics.jsonl", "iter-000/metrics.json", "config.yaml")
    ),
    VALUES,
)
def test_other_files_of_a_run(run, name, value):
    content = yaml.safe_dump(value).encode("utf-8", "surrogatepass") if name == "config.yaml" else dumped(value)
    with instead(run / name, content):
        with messages_only(run):
            table(read_states(run.parent))
        with messages_only(run):
            sweep = read_runs(run.parent)
            pairing = pair(sweep, None)
            text(sweep, pairing), page(sweep, pairing, run.parent)
        with messages_only(run):
            check(run)
        with messages_only(run):
            newest_policy(run)


LOCKS = st.one_of(
    VALUES.map(dumped),
    st.fixed_dictionaries(
        {}, optional={name: VALUES for name in ("token", "machine", "host", "pid", "started", "slurm_job", "since")}
    ).map(dumped),
    NO_JSON,
)


@some(30)
@given(LOCKS)
def test_locks(content):
    with folder() as place:
        (place / "runs").mkdir()
        (place / "runs" / "lock").write_bytes(content)
        with messages_only(place):
            lock = Lock(place / "runs" / "lock", beat_s=0.005, dead_after_s=0.01)
            lock.acquire()
            lock.release()


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "link to itself"])
def test_locks_that_are_no_files(kind):
    with folder() as place:
        (place / "runs").mkdir()
        path = place / "runs" / "lock"
        {
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "dangling link": lambda: path.symlink_to(place / "elsewhere"),
            "link to itself": lambda: path.symlink_to(path),
        }[kind]()
        with messages_only(place):
            lock = Lock(path, beat_s=0.005, dead_after_s=0.01)
            lock.acquire()
            lock.release()


KEYS = st.sampled_from((
    "run.name", "run.root", "pool.path", "sampler.alpha", "clusters.n", "experiment", "sweep", "dpo", "rollouts.stop",
    "evaluate.benchmarks", "+x.y", "~run", "run.seed", "hydra.run.dir", "nothing", "pool.verifier",
))  # fmt: skip
OVERRIDES = st.lists(st.tuples(KEYS, TEXTS).map("=".join) | TEXTS, max_size=3)


@some(25)
@given(OVERRIDES)
def test_overrides(words):
    with folder() as place, messages_only(place):
        compose.from_overrides(["experiment=tiny", *words])


@some(12)
@given(st.lists(OVERRIDES.map(" ".join), min_size=1, max_size=3), st.booleans())
def test_sweep_files(lines, is_named):
    content = "\n".join(f"run.name=r{i} {line}" if is_named else line for i, line in enumerate(lines))
    with folder() as place:
        (place / "sweep.txt").write_bytes(content.encode("utf-8", "surrogatepass"))
        with messages_only(place):
            freeze(read_sweep("sweep.txt", ["experiment=tiny"]), [], "x")
