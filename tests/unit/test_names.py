"""Names from outside that become paths: refused with a message, or made valid."""

import itertools
from pathlib import Path

import pytest
from submit_freeze import freeze
from submit_sweep import read_sweep

from hpc_saidpo.cli import evaluate
from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.errors import RunError
from hpc_saidpo.names import LONGEST, as_name, below, fault_of, inside, require_name
from hpc_saidpo.settings import Evaluate
from hpc_saidpo.settings.evaluate import Benchmark

BAD = {
    "": "is empty",
    ".": "begins with a dot",
    "..": "begins with a dot",
    "../x": "begins with a dot",
    ".shared": "begins with a dot",
    "/abs": "contains a '/'",
    "a/b": "contains a '/'",
    "a" * 300: "is longer than 180 bytes",
    "ä" * 100: "is longer than 180 bytes",
    "a\nb": "contains a control character",
    "a\x1b[31mb": "contains a control character",
    "a\0b": "contains a control character",
    "a\u202eb": "contains a control character",
    "a\udcffb": "contains a control character",
}
GOOD = ("demo", "tiny,idpo,clusters.n=6", "a b", "über", "x..y", "~", "-x", "a" * LONGEST)


@pytest.mark.parametrize(("name", "fault"), BAD.items(), ids=ascii)
def test_a_bad_name_is_refused_with_the_reason_and_made_valid(name, fault):
    assert fault_of(name) == fault
    with pytest.raises(ValueError, match=r"write a name of at most 180 bytes with no '/'.*, for example \w"):
        require_name(name)
    assert fault_of(as_name(name)) == ""


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_itself(name):
    assert require_name(name) == name


def test_long_texts_make_different_names():
    names = [as_name("a" * 400 + end) for end in "bcd"]
    assert len(set(names)) == 3 and {len(name) for name in names} == {LONGEST}
    assert as_name("ä" * 400).encode().decode() and len(as_name("ä" * 400).encode()) <= LONGEST


@pytest.mark.parametrize("name", [name for name in BAD if name.isprintable()], ids=ascii)
def test_a_bad_name_of_a_run_is_refused_with_its_key(name):
    with pytest.raises(RunError, match=rf"run\.name: the name {BAD[name]}: write a name"):
        from_overrides(["experiment=tiny", f"run.name='{name}'"])


def test_a_policys_folder_gives_a_valid_name_of_an_evaluation():
    for path in ("/models/..", "..", "/", "x" * 400, "a\nb", "/models/.hidden", "runs/../iter-000/policy/model"):
        assert fault_of(as_name(f"evaluate-{evaluate.name_of(path)}")) == ""


@pytest.mark.parametrize(
    "name", ["x/..", "x/.", "./.shared.jsonl", "a/" + "b" * 300 + ".jsonl", "a/b\nc.jsonl"], ids=ascii
)
def test_a_benchmark_that_would_be_a_bad_folder_is_refused(name):
    with pytest.raises(ValueError, match=r"rename the file or its key in evaluate\.known; write a name"):
        Evaluate(benchmarks=(name,))
    with pytest.raises(RunError, match="rename the file"):
        Evaluate().plan([name])


@pytest.mark.parametrize("name", ["..", ".shared", "a\nb"], ids=ascii)
def test_a_key_of_a_benchmark_that_would_be_a_bad_folder_is_refused(name):
    with pytest.raises(ValueError, match="rename the file or its key"):
        Evaluate(known={name: Benchmark(file="x.jsonl")})


def test_every_name_of_a_submission_is_valid_and_they_differ():
    """The name of a task gets a number for its evaluation, and that of the submission a prefix."""
    long = "a" * LONGEST
    lines = read_sweep("clusters", ["experiment=tiny"])
    swept = freeze(lines, [], "b" * 300)
    named = freeze(type(lines)("s", [[f"run.name={long}", "experiment=tiny"]], []), [], f"s-{long}")
    for frozen in (swept, named):
        names = [config["run"]["name"] for _, config in frozen.files()]
        assert not [name for name in names if fault_of(name)]
        assert len(set(names)) == len(frozen.runs) + len(frozen.evaluations) + 1  # preparations share a folder


def test_a_line_of_a_sweep_with_a_bad_name_is_named(tmp_path):
    (tmp_path / "sweep.txt").write_text("run.name=ok\nrun.name=../../.bashrc\n")
    with pytest.raises(RunError, match=r"array task 1 of .*\n.*run\.name: the name begins with a dot"):
        freeze(read_sweep(str(tmp_path / "sweep.txt"), ["experiment=tiny"]), [], "s")


@pytest.mark.parametrize(
    "entry", ["", ".", "..", "../x", "/abs", "a//b", "a/../b", "a/./b", "a\nb", "a" * 256, 1, None, []]
)
def test_an_entry_that_is_no_relative_path_is_refused(tmp_path, entry):
    with pytest.raises(ValueError, match=r"no relative path without '\.\.'"):
        below(tmp_path, entry)
    with pytest.raises(ValueError, match=r"no relative path without '\.\.'"):
        inside(tmp_path, entry)


def test_an_entry_lies_in_its_folder(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    (folder / "real").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "x").write_text("")
    (folder / "out").symlink_to(elsewhere)
    (folder / "file").symlink_to(elsewhere / "x")
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "within").symlink_to("real")
    (folder / "real" / "up").symlink_to("../../elsewhere")
    for entry in ("out", "out/x", "file", "dangling", "loop", "within/up", "real/up/x"):
        with pytest.raises(ValueError, match="leads out of the folder by a link"):
            inside(folder, entry)
    for entry in ("real", "real/x", "within/x", ".hidden/x", "new"):
        assert inside(folder, entry) == folder / entry
    assert below(folder, "file") == folder / "file"  # a model in the cache of the Hub consists of links
    (tmp_path / "link").symlink_to(folder)
    assert inside(Path(tmp_path / "link"), "real/x") == tmp_path / "link" / "real" / "x"


def test_faults_name_every_kind():
    """The list above holds every message."""
    assert {fault_of(name) for name in BAD} == {
        "is empty", "begins with a dot", "contains a '/'", "is longer than 180 bytes", "contains a control character",
    }  # fmt: skip
    assert all(a != b for a, b in itertools.combinations(map(as_name, GOOD), 2))
