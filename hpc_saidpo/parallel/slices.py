"""Broadcast and gather values of any size, in slices: some MPI libraries fail with messages of 2 GiB or more."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

SLICE_BYTES = 2**30  # of a message, at most


def bcast(mpi: ModuleType, comm: MPI.Intracomm, value: Any) -> Any:
    """Return root's value on every rank. Collective."""
    data = mpi.pickle.dumps(value) if comm.rank == 0 else b""
    n_bytes, small = comm.bcast((len(data), data if len(data) <= SLICE_BYTES else None))
    if comm.rank == 0:
        if small is None:
            _bcast_bytes(mpi, comm, data, n_bytes, 0)
        return value
    return mpi.pickle.loads(_bcast_bytes(mpi, comm, b"", n_bytes, 0) if small is None else small)


def gather(mpi: ModuleType, comm: MPI.Intracomm, value: Any) -> list[Any]:
    """Return every rank's value, in rank order, on every rank. Collective."""
    data = mpi.pickle.dumps(value)
    is_small = len(data) <= SLICE_BYTES // comm.size  # together they are one message
    values = []
    for rank, (n_bytes, small) in enumerate(comm.allgather((len(data), data if is_small else None))):
        values.append(mpi.pickle.loads(_bcast_bytes(mpi, comm, data, n_bytes, rank) if small is None else small))
    return values


def _bcast_bytes(mpi: ModuleType, comm: MPI.Intracomm, data: bytes, n_bytes: int, source: int) -> bytes | bytearray:
    """Return the bytes of one rank on every rank."""
    buffer = data if comm.rank == source else bytearray(n_bytes)
    view = memoryview(buffer)
    for begin in range(0, n_bytes, SLICE_BYTES):
        comm.Bcast([view[begin : begin + SLICE_BYTES], mpi.BYTE], root=source)
    return buffer
