"""Artefacts that several jobs need at the same moment."""

import os
import subprocess
import sys
import time

import pytest

from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.run import RunDir

MAKER = """
import sys, time
from pathlib import Path
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Reference
from hpc_saidpo.settings import Run
from hpc_saidpo.store.run import RunDir
import numpy as np
root, name, pause = sys.argv[1:]
run = RunDir.open(Run(root=root, name=name), {}, {}, World(), lambda message: print("report", message, flush=True))
def compute(stage):
    print("makes", sorted(stage.finished_chunks()), flush=True)
    for i in {0, 1, 2} - stage.finished_chunks():
        stage.write_chunk(i, Reference(np.full(4, i), np.full(4, i)))
        print("wrote", i, flush=True)
        time.sleep(float(pause))
artefact = run.shared("embedding", "key", compute, lambda stage: stage.read_chunks(Reference), resumes=True)
print("has", len(artefact), flush=True)
"""


def maker(folder, name, pause):
    command = [sys.executable, "-c", MAKER, str(folder), name, str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_jobs_that_start_at_once_one_makes_the_artefact_and_the_others_wait(tmp_path):
    said = [job.communicate(timeout=120)[0] for job in [maker(tmp_path, str(i), 0.5) for i in range(5)]]
    assert sum("makes []" in text for text in said) == 1 and all("has 12" in text for text in said)
    assert any("waiting for its result" in text for text in said)  # a late one finds the finished artefact
    assert [p.name.split("-")[0] for p in (tmp_path / ".shared").iterdir()] == ["embedding"]


def test_the_next_job_continues_in_the_folder_of_a_killed_one(tmp_path):
    first = maker(tmp_path, "first", 600)
    assert [first.stdout.readline() for _ in range(2)] == ["makes []\n", "wrote 0\n"]
    second = maker(tmp_path, "second", 0)
    assert "waiting for its result" in second.stdout.readline()
    first.kill()
    first.wait()
    assert second.communicate(timeout=120)[0] == "makes [0]\nwrote 1\nwrote 2\nhas 12\n"


def test_a_folder_that_is_continued_is_as_new_for_other_jobs(tmp_path):
    """They remove folders of a week ago."""
    run = RunDir(tmp_path / "run", World(), {}, print)

    def fail(stage):
        os.utime(stage.path, 2 * (time.time() - 6 * 86_400,))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.shared("embedding", "key", fail, lambda stage: stage, resumes=True)
    (before,) = (path.stat().st_ino for path in (tmp_path / ".shared").glob(".*.tmp"))
    seen = []
    run.shared("embedding", "key", lambda stage: seen.append(stage.path.stat()), lambda stage: stage, resumes=True)
    assert seen[0].st_ino == before and seen[0].st_mtime > time.time() - 86_400
