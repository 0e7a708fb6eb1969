"""Check on every rank that the verifiers of its questions can grade there."""

from __future__ import annotations

from collections.abc import Collection

from .. import settings
from ..errors import RunError
from ..parallel.world import World
from .verifiers import check


def check_verifiers(names: Collection[str], world: World, limits: settings.Grader) -> None:
    """Refuse to start if a verifier that any rank needs cannot grade on some rank. Collective.

    Args:
        names: verifiers that this rank's questions name.

    Raises:
        RunError: on every rank; names the verifier, the first rank where it cannot grade, and what to do.
    """
    needed, problem = sorted(set().union(*world.gather(set(names)))), ""
    try:
        check(needed, limits)
    except RunError as error:
        problem = str(error)
    for rank, message in enumerate(world.gather(problem)):
        if message:
            raise RunError(f"rank {rank}: {message}")
