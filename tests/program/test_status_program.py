"""`hpc-saidpo status` beside ranks that work: quick, and it names a rank that is suspended."""

import os

import pytest
from support.program import start

pytestmark = pytest.mark.e2e

SUSPENDED = """
import os, signal, sys, threading, time
from pathlib import Path
from hpc_saidpo import progress, settings
from hpc_saidpo.parallel.launch import connect
from hpc_saidpo.report.status import read_states, table
from hpc_saidpo.store import life
from hpc_saidpo.store.run import RunDir

root, world = Path(sys.argv[1]), connect()

def look():
    while not (states := read_states(root))[0].silent:
        time.sleep(0.05)
    print(table(states))
    world.abort(9)

with RunDir.open(settings.Run(root=str(root), name="a"), {}, {}, world) as run:
    progress.start_logging(run.log_path(), world.is_root)
    if world.is_root:
        run._life.end(None)
        run._life = life.Life(run.path, world, beat_s=0.05, silent_s=0.3)
        run._life.start(1)
        threading.Thread(target=look, daemon=True).start()

    def explore(stage):
        with progress.show("explore", 20, world.is_root) as task:
            for index in world.claim(20, task):
                time.sleep(0.02)
                if index == 1:
                    os.kill(os.getpid(), signal.SIGSTOP)

    run.stage(0, "explore", explore, lambda stage: None)
"""


def test_a_suspended_rank_is_named_with_host_and_chunk_in_the_log_and_in_status(tmp_path):
    done = start(str(tmp_path), ranks=2, program=("-c", SUSPENDED), timeout_s=100)
    host = os.uname().nodename
    says = f"rank 1 on {host}: silent at chunk 1 of iter-000/explore for"
    assert f"a: {says}" in " ".join(done.stdout.split()), done.stdout + done.stderr
    log = (tmp_path / "a" / "log" / "start-000" / "rank-0000.log").read_text()
    assert log.count(says) == 1 and "WARNING" in log
