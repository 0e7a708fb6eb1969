"""Whether the verifiers that the questions need can grade on every rank."""

from __future__ import annotations

from collections.abc import Collection

from .. import settings
from ..errors import RunError
from ..parallel.world import World
from .verifiers import check


def check_verifiers(own: Collection[str], world: World, limits: settings.Grader) -> None:
    """Refuse to start where a verifier that a rank needs cannot grade on some rank. Collective.

    Raises:
        RunError: on every rank; names the verifier, the first such rank, and what to do.
    """
    needed, problem = sorted(set().union(*world.gather(set(own)))), ""
    try:
        check(needed, limits)
    except RunError as error:
        problem = str(error)
    for rank, told in enumerate(world.gather(problem)):
        if told:
            raise RunError(f"rank {rank}: {told}")
