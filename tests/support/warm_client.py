"""Stand in for a process of the program: let the warm process fork one, with this process's files and environment.

    python -I -S warm_client.py SOCKET ARGUMENTS...

Signals go on to the forked process; its exit status becomes this process's. If this process dies, so does the fork.
"""

import array
import json
import os
import signal
import socket
import sys

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    path, *arguments = sys.argv[1:]
    files = [0, 1, 2, *(int(os.environ[name]) for name in ("PMI_FD",) if name in os.environ)]
    request = json.dumps(
        {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "files": files}
    )
    waiting: list[int] = []
    with socket.socket(socket.AF_UNIX) as connection:
        # Before anything is sent: a signal that comes earlier ends this process, as it would end one that starts.
        connection.connect(path)
        for number in FORWARDED:
            signal.signal(number, lambda number, frame: waiting.append(number))
        length = len(request.encode()).to_bytes(8, "big")
        connection.sendmsg([length], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        connection.sendall(request.encode())
        for number in FORWARDED:
            # The server kills the fork: a process on a node of the test's Slurm does not see processes outside it.
            signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
        connection.sendall(bytes(waiting))
        status = int(connection.makefile("r").read() or -signal.SIGKILL)
    if status < 0:  # the fork was killed by this signal
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


main()
