"""Messages and exit codes: one failing rank ends the whole job, and the failure is reported once."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

from .. import terminal
from ..errors import RunError, TryAgain, is_transient, message, origin_of, try_again, words_of
from ..parallel import launched
from ..parallel.stop import EXIT_STOPPED
from ..parallel.world import World

EXIT_BUG, EXIT_USER, EXIT_SIGNATURE = 1, 2, 3
TOGETHER_S = 30.0  # how long a rank that ends waits for the others
ROOT_FIRST_S = 2.0  # the same, where the others may be well; a rank that prints an error lets root do so first


@contextlib.contextmanager
def failures_end_the_job(world: World | None) -> Iterator[None]:
    """End every rank when this one fails: with a traceback if the failure is a bug, else with one message.

    Args:
        world: None before the ranks are connected.
    """
    try:
        yield
    except RunError as error:
        fail(world, str(error), origin_of(error), EXIT_STOPPED if isinstance(error, TryAgain) else EXIT_USER)
    except (HydraException, OmegaConfBaseException) as error:
        fail(world, describe(error))
    except Exception as error:  # noqa: BLE001 - after any failure the other ranks must not wait for this one
        if is_transient(error):
            fail(world, str(try_again(words_of(error))), origin_of(error), EXIT_STOPPED)
        print(f"{_this_rank(world)} failed:\n{message(traceback.format_exc())}", file=sys.stderr, flush=True)
        if world is None:
            sys.exit(EXIT_BUG)
        world.abort(EXIT_BUG)


def fail(world: World | None, text: str, origin: str | None = None, code: int = EXIT_USER) -> NoReturn:
    """Print a message once and end the job with an exit code.

    Root prints an error that all ranks have; else the failing rank does.

    Args:
        origin: where the error occurred, if it is known that every rank has it (`errors.origin_of`).
    """
    # Without a world this may be one of many processes that do not see each other.
    is_first = world.is_root if world else launched.rank() == 0
    if is_first:
        say(f"{origin}: {text}" if origin else text)
    if world is None:
        time.sleep(0 if is_first else ROOT_FIRST_S)
    else:
        world.leave(code, ROOT_FIRST_S if origin is None else TOGETHER_S)
    if not is_first:
        say(f"{_this_rank(world)}: {text}")
    if world is None:
        sys.exit(code)
    world.abort(code)


def _this_rank(world: World | None) -> str:
    if world:
        return world.name_of(world.rank)
    return f"rank {launched.rank()} on {platform.node()}"


def describe(error: HydraException | OmegaConfBaseException) -> str:
    """Return the message about a configuration that cannot be composed."""
    hint = ""
    if isinstance(error, InterpolationResolutionError):
        hint = "\n${NAME} stands for the value of another setting; write \\${ for these characters themselves"
    return f"configuration: {words_of(error)}{hint}"


def say(text: str) -> None:
    """Print a message to stderr, for the time before there is a log."""
    terminal.complain("hpc_saidpo", text)
