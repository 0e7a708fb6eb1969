"""What grading may cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..records import settings

START_S = 120.0  # that a process may take to import its libraries, on a file system under load


@settings()
class Limits:
    """What one pair may cost.

    Attributes:
        cpu_s: CPU time, s. It does not depend on how busy the machine is, so neither does a verdict.
        wall_s: time on the clock, s, for what does not even use CPU.
        memory_gib: address space of a process, GiB.
        code_unsandboxed: programs of responses may run where the kernel cannot confine them.
    """

    cpu_s: Annotated[float, Field(gt=0)] = 3.0
    wall_s: Annotated[float, Field(gt=0)] = 30.0
    memory_gib: Annotated[float, Field(gt=0)] = 4.0
    code_unsandboxed: bool = False
