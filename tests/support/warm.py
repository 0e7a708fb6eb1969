"""Starts of the program that cost tenths of a second: forks of a process that has imported everything.

The start of a rank costs seconds of imports. One warm process does these imports once and runs nothing. For each start
it forks. The fork has the open files, environment and folder of the process that stands in for it (`warm_client`),
alone or under mpiexec. It then does everything that a start does, the initialisation of MPI included.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HOME = Path(__file__).parents[2]  # the checkout under test, which need not be the installed one
IMPORTS = (
    "numpy", "scipy.special", "torch", "transformers", "h5py", "hdf5plugin", "hydra", "mpi4py", "mpi4py.run",
    "pydantic", "sklearn.cluster", "sklearn.metrics", "matplotlib.figure", "transformers.models.llama",
    "sentence_transformers",
    "torch.distributed", "torch.nn.parallel", "hpc_saidpo.cli.program", "hpc_saidpo.cli.session", "hpc_saidpo.cli.loop",
    "hpc_saidpo.cli.evaluation", "hpc_saidpo.parallel.gradients", "hpc_saidpo.policy.model", "hpc_saidpo.dpo.train",
    "hpc_saidpo.rollouts.waves",
)  # fmt: skip

_PR_SET_PDEATHSIG = 1  # of prctl(2)


class Warm:
    """The warm process of this test process; started at its first use, ended with it."""

    def __init__(self, environment: dict[str, str]):
        folder = tempfile.mkdtemp(prefix="warm-")
        self.path = str(Path(folder) / "socket")
        self._process = subprocess.Popen(
            [sys.executable, __file__, self.path],
            env={**environment, "PYTHONPATH": str(HOME)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self._end)
        until = time.monotonic() + 120
        while not Path(self.path).exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the warm process did not start")
            time.sleep(0.05)

    def command(self, *arguments: str) -> list[str]:
        """The command that stands in for `python ARGUMENTS`, where these begin with -m."""
        return [sys.executable, "-I", "-S", str(Path(__file__).with_name("warm_client.py")), self.path, *arguments]

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(path: str) -> None:
    """Import, then fork for each connection until killed."""
    gc.disable()
    for name in IMPORTS:
        importlib.import_module(name)
    gc.enable()
    gc.freeze()  # in the forks, too, no search for garbage looks at what is imported
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(64)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    os.rename(path + ".new", path)
    forks: dict[socket.socket, tuple[int, int]] = {}  # connection -> pid, descriptor that is readable at its end
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                connection, _ = listener.accept()
                pid = _fork(connection, listener, [*forks])
                ended = os.pidfd_open(pid)
                forks[connection] = pid, ended
                selector.register(ended, selectors.EVENT_READ, connection)
                selector.register(connection, selectors.EVENT_READ)
                continue
            connection = key.data or key.fileobj
            if connection not in forks:
                continue
            if key.data is None and (numbers := connection.recv(64)):
                for number in numbers:
                    os.kill(forks[connection][0], number)
                continue
            pid, ended = forks.pop(connection)
            if key.data is None:  # the process that stands in for it is gone
                os.kill(pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            selector.unregister(ended)
            selector.unregister(connection)
            os.close(ended)
            with contextlib.suppress(OSError):
                connection.sendall(str(status).encode())
            connection.close()


def _fork(connection: socket.socket, listener: socket.socket, others: list[socket.socket]) -> int:
    request, files = _receive(connection)
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        return pid
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # no fork outlives the warm process
        for own in (listener, connection, *others):
            own.close()
        code = _run(request, files)
    except BaseException:  # noqa: BLE001 - reported as Python reports an uncaught exception
        traceback.print_exc()
        code = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
    # Runs the exit handlers of C libraries: MPICH says good-bye to mpiexec, torch frees Python objects.
    ctypes.PyDLL(None).exit(code)
    raise AssertionError("exit returned")


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    head, ancillary, *_ = connection.recvmsg(8, socket.CMSG_SPACE(16 * 4))
    files = array.array("i")
    for _, _, data in ancillary:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    body, size = b"", int.from_bytes(head, "big")
    while len(body) < size:
        body += connection.recv(size - len(body))
    return json.loads(body), list(files)


def _run(request: dict, files: list[int]) -> int:
    above = 1 + max(request["files"])  # no copy has a wanted number, which is written to below
    copies = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(copies, request["files"], strict=True):
        os.dup2(file, number, inheritable=True)
        os.close(file)
    _open_streams()
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    dash, module, *arguments = request["arguments"]
    assert dash == "-m"
    sys.path[:1] = [request["folder"], *filter(None, request["environment"].get("PYTHONPATH", "").split(":"))]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    else:
        code = 0
    _finish()
    return code


def _open_streams() -> None:
    """Open sys.stdin, sys.stdout and sys.stderr as Python does: those of the warm process know other files."""
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    for name, number, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        stream = open(number, "w", encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115 - the same
        stream.reconfigure(line_buffering=number == 2 or stream.isatty())
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _finish() -> None:
    """Do what the end of a Python process does: os._exit does not."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


if __name__ == "__main__":
    serve(sys.argv[1])
