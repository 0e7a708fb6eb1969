"""Messages and exit codes: one failing rank ends the whole job, and the failure is reported once."""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from ..errors import RunError, TryAgain, is_transient, try_again, words_of
from ..parallel import launched
from ..parallel.stop import EXIT_STOPPED
from ..parallel.world import World

EXIT_BUG, EXIT_USER, EXIT_SIGNATURE = 1, 2, 3
ROOT_FIRST_S = 2.0  # pause of the other ranks before they print a message that root may have printed


@contextlib.contextmanager
def failures_end_the_job(world: World | None) -> Iterator[None]:
    """End every rank when this one fails: with a traceback if the failure is a bug, else with one message.

    Args:
        world: None before the ranks are connected.
    """
    try:
        yield
    except RunError as error:
        fail(world, str(error), EXIT_STOPPED if isinstance(error, TryAgain) else EXIT_USER)
    except (HydraException, OmegaConfBaseException) as error:
        fail(world, describe(error))
    except Exception as error:  # noqa: BLE001 - after any failure the other ranks must not wait for this one
        if is_transient(error):
            fail(world, str(try_again(words_of(error))), EXIT_STOPPED)
        print(f"rank {world.rank if world else 0} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        if world is None:
            sys.exit(EXIT_BUG)
        world.abort(EXIT_BUG)


def fail(world: World | None, message: str, code: int = EXIT_USER) -> NoReturn:
    """Print a message once and end the job with an exit code.

    Root prints an error that all ranks have; else the failing rank does.
    """
    # Without a world this may be one of many processes that do not see each other.
    rank = world.rank if world else launched.rank()
    if rank:
        time.sleep(ROOT_FIRST_S)
        message = f"rank {rank}: {message}"
    say(message)
    if world is None or world.size == 1:
        sys.exit(code)
    world.abort(code)


def describe(error: HydraException | OmegaConfBaseException) -> str:
    """Return the message about a configuration that cannot be composed."""
    hint = ""
    if isinstance(error, InterpolationResolutionError):
        hint = "\n${NAME} stands for the value of another setting; write \\${ for these characters themselves"
    return f"configuration: {error}{hint}"


def say(message: str) -> None:
    """Print a message to stderr, for the time before there is a log."""
    print(f"hpc_saidpo: {message}", file=sys.stderr, flush=True)
