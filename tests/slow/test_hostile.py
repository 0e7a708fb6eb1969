"""Hostile programs and answers: their verdicts, and that they reach nothing, as this user and as one in a namespace."""

import json
import subprocess
import sys

import pytest
from support import hostile
from support.needs import needs_sandbox

pytestmark = needs_sandbox
SOMEBODY = ("unshare", "--user", "--map-user=1000", "--map-group=1000")  # who is not root
PROGRAMS = hostile.programs()
ANSWERS = [(row, gold) for row in hostile.answers() for gold in row["golds"]]
# Programs that show that the surroundings can be reached: without the sandbox they reach them.
READ = ("a file of the user", "a file beside a library", "a key of the session keyring", "a segment of shared memory")
CONNECT = ("a server on this machine", "a Unix socket in a file", "a Unix socket without a file")


@pytest.fixture(scope="module", params=["this user", "somebody"])
def found(request):
    """What `support.hostile` found as a user: one process judges all programs and answers."""
    prefix = SOMEBODY if request.param == "somebody" else ()
    command = [*prefix, sys.executable, "-m", "support.hostile"]
    paths = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=600)
    if prefix and "unshare failed" in done.stderr:
        pytest.skip("not run: this user may make no user namespace")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_program_gets_its_verdict_and_reaches_nothing(found, program):
    verdict, reason, changed = found["programs"][program.name]
    assert (verdict, program.expects(reason)) == (program.verdict, True), reason
    assert not changed and hostile.SECRET not in reason
    assert len(reason) <= 300 and reason.isprintable()


@pytest.mark.parametrize(("row", "gold"), ANSWERS, ids=[f"{row['name']} / {gold}" for row, gold in ANSWERS])
def test_an_answer_gets_its_verdict_and_writes_nothing(found, row, gold):
    verdict, reason, files = found["answers"][f"{row['name']} / {gold}"]
    assert verdict == row["verdict"], reason
    assert not files


def test_nothing_is_left_and_no_signal_arrives(found):
    assert found["programs"][""] == [] and found["signals"] == []


def test_the_tables_are_large_and_without_repetition():
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) >= 130
    assert len({row["name"] for row, _ in ANSWERS}) >= 50
    assert len({program.code + program.tests for program in PROGRAMS}) == len(PROGRAMS)


def test_without_the_sandbox_the_same_programs_reach_what_they_look_for(monkeypatch):
    """So the surroundings are real, and a program that reached them would be seen."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    found = hostile.judge_programs((*READ, *CONNECT), is_confined=False)
    assert all(hostile.SECRET in found[name][1] for name in READ), found
    assert all("arrived" in found[name][2][0] for name in CONNECT), found
