"""What others may have put under a shared run.root, or into a folder: refused in words or ignored, never a wait."""

import json
import logging
import os
import shutil
import signal
import stat
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.mini_run import work

from hpc_saidpo import progress, settings
from hpc_saidpo.cli import status, verify
from hpc_saidpo.compare.read import read_runs
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Draw
from hpc_saidpo.store import files, life, shared, tables, temporaries
from hpc_saidpo.store.contents import unfinished
from hpc_saidpo.store.hashes import Hashes
from hpc_saidpo.store.lock import Lock
from hpc_saidpo.store.manifest import text_of
from hpc_saidpo.store.owner import this_process
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.store.stage import Stage
from hpc_saidpo.store.tables import Damaged

TABLE = Draw(np.arange(3), np.ones(3), np.zeros(3, dtype=np.int64))


def fifo(path):
    os.mkfifo(path)


def text(content):
    return lambda path: path.write_text(content)


# Each puts something under a name where an ordinary file of this program should be.
KINDS = {
    "an empty object": text("{}"),
    "a list": text("[1]"),
    "a text": text('"x"'),
    "deep": text("[" * 100_000),
    "no JSON": text("my notes"),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
    "a folder": lambda path: path.mkdir(),
    "a pipe": fifo,
    "a dangling link": lambda path: path.symlink_to(path.parent / "nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
}


@pytest.fixture(autouse=True)
def deadline():
    """A wait is a failure, and not the end of all tests."""

    def late(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    work(folder)
    return folder


@pytest.fixture
def root(finished, tmp_path):
    """A root with one finished run."""
    return Path(shutil.copytree(finished, tmp_path / "root"))


def replace(path, kind):
    path.unlink(missing_ok=True)
    KINDS[kind](path)


# ---- locks ----

NO_OWNER = {
    **{kind: put for kind, put in KINDS.items()},
    "an owner without a fact": text(json.dumps({k: v for k, v in this_process().items() if k != "pid"})),
    "a pid that is a text": text(json.dumps({**this_process(), "pid": "1"})),
    "a pid that is too large": text(json.dumps({**this_process(), "pid": 2**70})),
    "a pid that is negative": text(json.dumps({**this_process(), "pid": -1})),
    "a host that writes to the terminal": text(json.dumps({**this_process(), "host": "\x1b[2J"})),
    "a long host": text(json.dumps({**this_process(), "host": "x" * 70_000})),
}


@pytest.mark.parametrize("name", ["lock", "lock.guard"])
@pytest.mark.parametrize("kind", NO_OWNER)
def test_what_is_no_lock_is_refused_and_stays(tmp_path, kind, name):
    path = tmp_path / "lock"
    if name == "lock.guard":
        child = {**this_process(), "pid": 2**22 - 1, "process_start": 1}  # no such process
        path.write_text(json.dumps(child))
    NO_OWNER[kind](tmp_path / name)
    with pytest.raises(RunError, match=rf"{name} is no lock of this program \(.*then remove the file"):
        Lock(path).acquire()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"lock", name})


def test_a_lock_that_was_replaced_while_it_was_held_is_left(tmp_path):
    lock = Lock(tmp_path / "lock", beat_s=0.01)
    lock.acquire()
    replace(tmp_path / "lock", "a list")
    with pytest.raises(RunError, match="is no lock"):
        lock.check()
    lock.release()
    assert (tmp_path / "lock").read_text() == "[1]"


# ---- temporary files ----


def test_a_temporary_file_is_new_and_no_link_is_followed(tmp_path, monkeypatch):
    """Also when a stranger knows its name."""
    victim, target = tmp_path / "victim", tmp_path / "table"
    victim.write_text("mine")
    monkeypatch.setattr(os, "urandom", lambda n: b"\1" * n)
    for write in (lambda: files.write_text(target, "new"), lambda: life._replace(target, {})):
        known = temporaries.beside(target)
        known.symlink_to(victim)
        with pytest.raises(FileExistsError):
            temporaries.create(known)
        write()
        assert victim.read_text() == "mine"
        known.unlink(missing_ok=True)


def test_two_temporary_names_differ_and_long_ones_are_valid(tmp_path):
    for name in ("x", "x" * 255, "ä" * 127):
        names = [temporaries.beside(tmp_path / name) for _ in range(2)]
        assert names[0] != names[1] and all(map(temporaries.is_temporary, names))
        names[0].write_text("")


def test_a_file_that_is_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "config.yaml").symlink_to("victim")
    files.write_text(tmp_path / "config.yaml", "new")
    assert (tmp_path / "victim").read_text() == "mine" and not (tmp_path / "config.yaml").is_symlink()


@pytest.mark.parametrize("kind", ["a pipe", "a dangling link", "a folder"])
def test_a_log_goes_to_an_ordinary_file_alone(tmp_path, kind):
    KINDS[kind](tmp_path / "rank-0000.log")
    handlers = progress.log.handlers[:]
    with pytest.raises(RunError, match=r"cannot write .*rank-0000\.log: "):
        progress.start_logging(tmp_path / "rank-0000.log", True)
    progress.start_logging(tmp_path / "good.log", False)
    progress.log.info("text")
    logging.getLogger("hpc_saidpo").handlers[0].close()
    progress.log.handlers[:], progress.log.propagate = handlers, True
    assert "INFO text" in (tmp_path / "good.log").read_text() and not (tmp_path / "nowhere").exists()


def test_a_start_removes_its_own_temporary_files_and_nothing_else(root):
    run, end = root / "run", "0123456789abcdef.tmp"
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    (run / "base" / "evaluate" / "x").mkdir(parents=True)
    (run / "notes").mkdir()
    (root / ".shared").mkdir()
    (run / "base" / "evaluate" / "linked").symlink_to(elsewhere)
    folders = [run, run / "iter-000", run / "iter-000" / "probe", run / "base" / "evaluate" / "x"]
    own = [folder / f".x.h5.{end}" for folder in folders]
    foreign = [
        run / ".vim-session.tmp", run / ".x.77.tmp", run / "notes" / f".x.{end}", run / "iter-000" / ".model.tmp",
        root / ".shared" / f".x.{end}", root / f".x.{end}", elsewhere / f".x.{end}", run / f"x.{end}",
    ]  # fmt: skip
    for path in (*own, *foreign):
        path.write_text("")
    (run / "iter-000" / f".model.{end}").mkdir()
    (run / "iter-000" / f".model.{end}" / "w").write_text("half")
    (run / f".link.{end}").symlink_to(elsewhere)
    assert len(unfinished(run)) == len(own) + 2
    work(root)
    assert not unfinished(run) and not any(path.exists() for path in own)
    assert all(path.exists() for path in foreign)


# ---- shared artefacts ----


def artefact(folder, compute=lambda stage: stage.write("x", TABLE), resumes=False):
    path = folder / "embedding-0123456789abcdef"
    return shared.load_or_compute(path, World(), lambda message: None, compute, lambda s: s.read("x", Draw), resumes)


@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("kind", ["a link", "a file"])
def test_scratch_of_a_stranger_is_not_written_to(tmp_path, kind, resumes):
    scratch, victim = tmp_path / f".embedding-0123456789abcdef.{os.getuid()}.tmp", tmp_path / "victim"
    victim.mkdir()
    scratch.symlink_to(victim) if kind == "a link" else scratch.write_text("")
    with pytest.raises(RunError, match=r"is a link, or belongs to another user|cannot write"):
        artefact(tmp_path, resumes=resumes)
    assert not list(victim.iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="not run: only root can give a folder away")
def test_scratch_of_another_user_is_refused(tmp_path):
    scratch = tmp_path / ".embedding-0123456789abcdef.0.tmp"
    scratch.mkdir()
    os.chown(scratch, 65534, 65534)
    with pytest.raises(RunError, match="belongs to another user"):
        artefact(tmp_path, resumes=True)


def test_old_scratch_of_strangers_stays(tmp_path):
    old = time.time() - 2 * shared.STALE_SCRATCH_S
    own = [tmp_path / name for name in (".pool-0123456789abcdef.0.tmp", ".x.lock.0123456789abcdef.tmp")]
    foreign = [tmp_path / name for name in (".vim-session.tmp", ".tmp-notes", ".x.tmp.swp", ".pool-0123.0.tmp")]
    for path in (*own, *foreign):
        path.write_text("")
        os.utime(path, (old, old))
    assert artefact(tmp_path).equals(TABLE)
    assert not any(path.exists() for path in own) and all(path.exists() for path in foreign)


@pytest.mark.parametrize("kind", KINDS)
def test_a_manifest_that_is_none_makes_an_artefact_computed_again(tmp_path, kind):
    artefact(tmp_path)
    replace(tmp_path / "embedding-0123456789abcdef" / "DONE", kind)
    assert artefact(tmp_path).equals(TABLE)


# ---- stages ----

FACTS = {"bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize("entry", ["../victim", "/etc/passwd", "a/../../victim", "", ".", "link", "linked/x", "a\nb"])
def test_a_manifest_names_files_of_its_folder_alone(tmp_path, entry):
    stage = Stage(tmp_path / "stage")
    stage.prepare()
    (tmp_path / "victim").write_text("x")
    (stage.path / "link").symlink_to(tmp_path / "victim")
    (stage.path / "linked").symlink_to(tmp_path)
    (stage.path / "DONE").write_text(text_of({entry: FACTS}))
    with pytest.raises(Damaged, match="DONE: is not readable"):
        stage.check_complete()
    with pytest.raises(Damaged, match="DONE: is not readable"):
        stage.read_chunks(Draw)


@pytest.mark.parametrize("facts", [1, [], {}, {"bytes": "1", "sha256": ""}, {"bytes": 1, "sha256": None}])
def test_a_manifest_without_facts_is_damaged(tmp_path, facts):
    (tmp_path / "DONE").write_text(text_of({"x": facts}))
    with pytest.raises(Damaged, match="DONE: is not readable"):
        Stage(tmp_path).check_complete()


@pytest.mark.parametrize("content", ["../x\n", "a/b\n", ".\n", "a\x1b[2J\n"])
def test_names_of_discarded_files_are_names(tmp_path, content):
    stage = Stage(tmp_path)
    stage.mark_done()
    (tmp_path / "DISCARDED").write_text(content)
    with pytest.raises(Damaged, match="DISCARDED: is not readable"):
        stage.check_complete()


# ---- tables ----


def external_link(file, other):
    del file["weight"]
    file["weight"] = h5py.ExternalLink(other, "weight")


def soft_link(file, other):
    del file["weight"]
    file["weight"] = h5py.SoftLink("/question")


def unused_link(file, other):
    file.create_group("g/h")["x"] = h5py.ExternalLink("/etc/passwd", "x")


def external_storage(file, other):
    del file["weight"]
    file.create_dataset("weight", (3,), "f8", external=[(other, 0, 24)])


def virtual(file, other):
    del file["weight"]
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(other, "weight", (3,))
    file.create_virtual_dataset("weight", layout)


@pytest.mark.parametrize("change", [external_link, soft_link, unused_link, external_storage, virtual])
def test_a_table_that_points_elsewhere_is_damaged(tmp_path, change):
    stage = Stage(tmp_path)
    stage.write("other", TABLE)
    stage.write("draw", TABLE)
    with h5py.File(tmp_path / "draw.h5", "r+") as file:
        change(file, str(tmp_path / "other.h5"))
    with pytest.raises(Damaged, match=r"is a link, which is not followed|lie in another file, which is not read"):
        stage.read("draw", Draw)
    with pytest.raises(Damaged, match=r"not followed|not read"):
        tables.check(tmp_path / "draw.h5")


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a link to a device", "a dangling link"])
def test_a_table_that_is_no_file_is_damaged(tmp_path, kind):
    KINDS[kind](tmp_path / "draw.h5")
    with pytest.raises(Damaged, match=r"is not an HDF5 file|is missing"):
        Stage(tmp_path).read("draw", Draw)


# ---- the files of a run ----


@pytest.mark.parametrize("name", ["progress.json", "failure.json", "env.json", "iter-000/metrics.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_status_reads_hints_of_strangers(root, capsys, kind, name):
    (root / "run" / "failure.json").write_text("{}")
    replace(root / "run" / name, kind)
    assert status.main([str(root)]) == 0 and status.main([str(root), "--json"]) == 0
    assert "run" in capsys.readouterr().out


RECORD = {"state": "running", "written": 1e12}


@pytest.mark.parametrize(
    "change",
    [
        {"written": "x"}, {"written": float("nan")}, {"written": 10**400}, {"iterations": 10**14}, {"iterations": None},
        {"place": "iter-000/nothing"}, {"place": "iter-000/evaluate/x"}, {"place": 1}, {"counts": [1]},
        {"counts": {"tokens": "x"}}, {"silent": [1]}, {"silent": "x"}, {"spent_s": {"iter-000/x": "y"}}, {"done": "x"},
        {"task_s": None, "total": 5, "done": 3, "done_before": 0}, {"place": f"iter-{'9' * 5000}/probe"},
    ],
    ids=str,
)  # fmt: skip
def test_status_reads_records_with_other_values(root, capsys, change):
    path = root / "run" / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "place": "iter-000/probe", **RECORD, **change}))
    assert status.main([str(root)]) == 0
    assert status.main([str(root), "--json"]) == 0


@pytest.mark.parametrize("value", [1, [], {"slurm": 1}, {"slurm": {"SLURM_JOB_ID": 1}}, {"hosts": 1}, {"packages": 1}])
def test_status_and_compare_read_starts_with_other_values(root, capsys, value):
    (root / "run" / "env.json").write_text(json.dumps([value, value]))
    assert status.main([str(root)]) == 0
    read_runs(root)


@pytest.mark.parametrize("name", ["progress.json", "failure.json"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_beside_broken_hints(root, kind, name):
    replace(root / "run" / name, kind)
    work(root)
    assert stat.S_ISREG(os.lstat(root / "run" / "progress.json").st_mode) or kind == "a folder"


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "iter-000/metrics.json", "iter-000/probe/DONE", "lock"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_a_broken_file_is_refused_in_words(root, kind, name):
    """A link that leads nowhere is no file: a new one replaces it."""
    replace(root / "run" / name, kind)
    try:
        work(root)
    except RunError as error:
        assert Path(name).name in str(error)
    else:
        assert kind in ("a dangling link", "a link to itself") and name != "lock"


@pytest.mark.parametrize("name", ["config.yaml", "env.json", "iter-000/metrics.json", "iter-000/probe/DONE"])
@pytest.mark.parametrize("kind", KINDS)
def test_verify_and_compare_read_broken_files(root, capsys, kind, name):
    replace(root / "run" / name, kind)
    assert verify.main([str(root / "run")]) in (0, 1, 2)
    try:
        assert read_runs(root)
    except RunError:
        assert name == "config.yaml"


@pytest.mark.parametrize("kind", KINDS)
def test_hashes_of_a_stranger_are_computed_again(tmp_path, kind):
    file = tmp_path / "x"
    file.write_text("content")
    path = tmp_path / ".hashes.json"
    KINDS[kind](path)
    if kind == "a folder":
        with pytest.raises(RunError, match=r"cannot write .*hashes\.json"):
            Hashes(path).of([file])
    else:
        assert Hashes(path).of([file]) == [files.sha256(file)]


def test_a_foreign_hash_that_is_none_is_computed_again(tmp_path):
    file, path = tmp_path / "x", tmp_path / ".hashes.json"
    file.write_text("content")
    Hashes(path).of([file])
    ((key, (state, value)),) = json.loads(path.read_text()).items()
    path.write_text(json.dumps({key: [state, "../../x"]}))
    assert Hashes(path).of([file]) == [value]


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_of_another_run_that_cannot_be_read_keeps_policies(root, kind):
    (root / "other").mkdir()
    KINDS[kind](root / "other" / "config.yaml")
    with RunDir.open(
        settings.Run(root=str(root), name="run"), {"run": {"name": "run"}, "pool": {"path": "a"}}, {}, World()
    ) as run:
        run.remove_policies("last")
    assert (root / "run" / "iter-000" / "policy" / "model").exists()


def test_a_link_in_the_place_of_a_policy_is_removed_and_its_target_stays(tmp_path):
    (tmp_path / "away").mkdir()
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / "model").symlink_to("../away")
    Stage(tmp_path / "stage").remove("model")
    assert (tmp_path / "away").is_dir() and not list((tmp_path / "stage").iterdir())
