"""One process as a world: the last output before an abort, signals, threads."""

import os
import signal
import threading
import time

import pytest

from hpc_saidpo.parallel import drain as draining
from hpc_saidpo.parallel import launched, stop
from hpc_saidpo.parallel.cores import n_threads
from hpc_saidpo.parallel.drain import drain


def test_the_last_output_is_read_before_an_abort_can_drop_it():
    reader, writer = os.pipe()
    slow = threading.Timer(0.2, lambda: os.read(reader, 65536))
    with os.fdopen(writer, "w") as stream:
        stream.write("the error")
        slow.start()
        drain(stream)
        assert draining._unread(writer) == 0
    slow.join()
    os.close(reader)


def test_a_reader_that_never_comes_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(draining, "_DRAIN_S", 0.05)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, open(os.devnull, "w") as no_pipe, open(os.devnull, "w") as closed:
        closed.close()
        stream.write("unread")
        drain(stream, no_pipe, closed)
        assert draining._unread(writer) == len("unread")
    os.close(reader)


def test_a_request_to_stop_is_ended_by_the_last_listener():
    """A process listens from its start; the world, once it is connected, says how to end."""
    before = {number: signal.getsignal(number) for number in stop.SIGNALS}
    request, ended = stop.StopRequest(), threading.Event()
    try:
        request.listen(0.0, None)
        os.kill(os.getpid(), signal.SIGUSR2)
        while not request:
            time.sleep(0.001)
        assert request.signal_name == "SIGUSR2" and not ended.wait(0.05)
        request.listen(0.0, lambda name: ended.set())
        assert ended.wait(10)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


def test_ctrl_c_is_answered_at_once_and_a_second_one_ends_the_work_in_flight(monkeypatch):
    monkeypatch.setattr(stop, "AGAIN_S", 0.05)
    before = {number: signal.getsignal(number) for number in stop.SIGNALS}
    request, said, ended = stop.StopRequest(), [], threading.Event()
    try:
        request.listen(600.0, lambda name: ended.set(), said.append)
        for _ in range(2):  # the terminal and a launcher send it nearly together
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.001)
        assert not ended.wait(0.1) and said == [stop.CTRL_C] and request.signal_name == stop.CTRL_C
        os.kill(os.getpid(), signal.SIGTERM)  # Slurm sends several signals: none of them ends the work before its time
        assert not ended.wait(0.1)
        os.kill(os.getpid(), signal.SIGINT)
        assert ended.wait(10)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(
    "core_L, environment, n",
    [
        ([range(0, 16), range(16, 32), range(32, 48), range(48, 64)], {}, 16),  # each rank is bound to cores of its own
        ([range(64)] * 4, {}, 16),  # none is bound
        ([range(64)] * 4, {"SLURM_CPUS_PER_TASK": "8"}, 8),  # nor does Slurm bind them
        ([range(1)], {"SLURM_CPUS_PER_TASK": "8"}, 1),  # mpirun -n 1 of Open MPI binds to one core
        ([range(2)] * 4, {}, 1),
        ([range(16)], {"OMP_NUM_THREADS": "3", "SLURM_CPUS_PER_TASK": "8"}, 3),
        ([range(16)] * 2, {"OMP_NUM_THREADS": "4,2"}, 4),  # a list: of nested regions
        ([range(16)] * 2, {"OMP_NUM_THREADS": ""}, 8),
    ],
)
def test_threads_of_a_rank(core_L, environment, n):
    assert n_threads(core_L, environment) == n


def test_one_process_in_an_allocation_of_several_tasks_is_told():
    assert "allocation of 8 tasks" in launched.unused_tasks(1, {"SLURM_NTASKS": "8"})
    for n_ranks, environment in ((8, {"SLURM_NTASKS": "8"}), (1, {"SLURM_NTASKS": "1"}), (1, {})):
        assert launched.unused_tasks(n_ranks, environment) == ""
