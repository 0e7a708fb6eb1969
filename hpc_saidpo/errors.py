"""Exceptions that end a run on purpose, and the translation of library exceptions into them. The rest are bugs.

Texts from outside (of files, models, servers, libraries) are shown in messages by `shown` and `words_of`, on one line
and without a character that a terminal obeys.
"""

from __future__ import annotations

import contextlib
import errno
import re
import unicodedata
from collections.abc import Iterator

LONGEST, PATH_CHARS = 300, 1000  # characters of a text from outside, and of a path, that are shown
# Errors of a network file system that pass: its server restarts, the connection is lost, another node replaces a file.
TRANSIENT = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EINTR, errno.ENOTCONN})
# Forms in which libraries without an errno attribute report it: safetensors, written in Rust, and HDF5.
_ERRNO = re.compile(r"os error (\d+)|errno = (\d+)")
_RARE = re.compile(r"[^ -~]")


class RunError(Exception):
    """A problem that the user can solve: the message says what is wrong, where, what to do. No traceback is shown."""


class TryAgain(RunError):
    """A fault outside the program that passes: finished work is stored, and the same command resumes."""


class Ended(Exception):
    """The run ends here for now. The message says why, and how to continue.

    Attributes:
        is_failure: depletion, or another failure signature. False: a planned pause (loop.stop_after, tags.mode=export).
    """

    def __init__(self, message: str, is_failure: bool = False):
        super().__init__(message)
        self.is_failure = is_failure


def mark_shared(error: Exception, origin: str) -> Exception:
    """Mark an exception that is raised on every rank: then the ranks can end together, without an abort.

    Args:
        origin: the rank and host where it occurred first; "" for root or all.
    """
    error.origin = origin  # pyright: ignore[reportAttributeAccessIssue]
    return error


def origin_of(error: BaseException) -> str | None:
    """Return the origin of an exception that is raised on every rank; None if this rank alone raises it."""
    return getattr(error, "origin", None)


@contextlib.contextmanager
def input_errors(problem: str, remedy: str) -> Iterator[None]:
    """Turn any exception of a library into a RunError: "problem (the library's words): remedy".

    Libraries raise exceptions of many types about a damaged input; the tokenizers library raises the type Exception
    itself. Use it around one call of a library that reads an input of the user, and around nothing else.

    Raises:
        TryAgain: the file system failed in a way that passes.
        RunError: the call failed otherwise. A lack of memory is raised as it is.
    """
    try:
        yield
    except (RunError, Ended):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if is_transient(error):
            raise try_again(f"{problem} ({words_of(error)})") from error
        raise RunError(f"{problem} ({words_of(error)}): {remedy}") from error


@contextlib.contextmanager
def memory_errors(place: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation into a RunError: "out of memory PLACE (the library's words): remedy".

    Raises:
        RunError: memory did not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"out of memory {place} ({words_of(error)}): {remedy}") from error


def visible(text: str, kept: str = "\n") -> str:
    """Return a text without characters that a terminal obeys, or that hide or reverse the text around them.

    Each is written as an escape, as in repr(): \\x1b, \\u202e. So is half of a character (a lone surrogate), which no
    file can hold.

    Args:
        kept: characters that stay although a terminal obeys them.
    """
    return text if text.isprintable() else _RARE.sub(lambda found: _escaped(found[0], kept), text)


def _escaped(character: str, kept: str) -> str:
    is_harmless = character.isprintable() or character in kept or unicodedata.category(character) == "Zs"
    return character if is_harmless else character.encode("unicode_escape").decode()


def shown(value: object, longest: int = LONGEST) -> str:
    """Return a value from outside as a message shows it: on one line, `visible`, cut where it is long."""
    text = str(value)
    longest = max(longest, PATH_CHARS) if hasattr(value, "__fspath__") else longest
    start = visible(text[:longest], kept="")
    return start if len(text) <= longest else f"{start}... ({len(text):,} characters)"


_message_chars = 10_000  # until run.message_chars is known


def limit_messages(characters: int) -> None:
    """Set the length of a message (run.message_chars) for this process."""
    global _message_chars
    _message_chars = characters


def message(text: str) -> str:
    """Return a message as a terminal or a log shows it: `visible`, in one or more lines.

    A long one lacks its middle: it begins with the problem, and ends with what to do.
    """
    if len(text) > _message_chars:
        n_last = _message_chars // 4
        cut = f" ... ({len(text):,} characters, cut at run.message_chars={_message_chars:,}) ... "
        text = f"{text[: _message_chars - n_last]}{cut}{text[-n_last:]}"
    return visible(text)


# Messages of libraries that advise to run the code in a folder: a part of each, and the words in its place.
_OF_CODE = {
    "trust_remote_code": "it needs code of its own (auto_map), and code in a folder is never run",
    "UnpicklingError": "a .bin file is damaged, or holds more than tensors, which may run code: use safetensors files",
}


def words_of(error: BaseException, with_type: bool = False) -> str:
    """Return the message of a library's exception on one line.

    Args:
        with_type: name the type, too. False: only where it says more than the message.
    """
    name, whole = type(error).__name__, str(error)
    for mark, words in _OF_CODE.items():
        if mark in f"{name}: {whole}":
            return words
    text = shown(" ".join(whole[: 2 * LONGEST].split()) + whole[2 * LONGEST :])
    if text and isinstance(error, (OSError, ValueError)) and not with_type:
        return text
    return f"{name}: {text}" if text else name


def reason_of(error: BaseException) -> str:
    """Return why a run failed: the message of a RunError, else the exception's type and words."""
    return str(error) if isinstance(error, RunError) else words_of(error, with_type=True)


# Messages of failed allocations without an exception type of their own: of torch, the kernel, the GPU, the C++ library.
_NO_MEMORY = re.compile(
    "can't allocate memory|Cannot allocate memory|CUDA out of memory|CUBLAS_STATUS_ALLOC_FAILED|std::bad_alloc"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Check whether an exception reports a failed allocation, on a CPU or a GPU."""
    # torch.OutOfMemoryError is recognised by its name: torch is not imported here.
    if isinstance(error, MemoryError) or any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__):
        return True
    return isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(str(error)) is not None


def errno_of(error: BaseException) -> int | None:
    """Return the errno of a failed system call, also from the text of a library's exception; None if there is none."""
    if isinstance(error, (RunError, Ended)):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    match = _ERRNO.search(str(error))
    return int(match[1] or match[2]) if match else None


def is_transient(error: BaseException) -> bool:
    """Check whether an exception reports a fault of a file system that passes."""
    return errno_of(error) in TRANSIENT


def try_again(problem: str) -> TryAgain:
    """Return the exception for a fault of a file system that passes."""
    return TryAgain(
        f"{problem}: a fault of the file system that should pass. Everything that was finished is kept: start the same "
        "command again"
    )


_KEPT = (TryAgain, RunError)  # raised as themselves on the other ranks
Failure = tuple[str, str, str]  # of another rank: its type, its text, the name of the rank


def encode_failure(error: Exception, rank: int, name: str) -> Failure:
    """Return a failure of this rank in a form that other ranks can receive: some exceptions cannot be pickled."""
    origin = name if rank else ""
    for kind in _KEPT:
        if isinstance(error, kind):
            return kind.__name__, str(error), origin
    if is_transient(error):
        return TryAgain.__name__, str(try_again(str(error))), origin
    return "", f"{type(error).__name__} on {name}: {error}", origin


def decode_failure(failure: Failure, error: Exception | None = None) -> Exception:
    """Return the exception to raise on every rank for a failure of one.

    Args:
        error: the exception, on the rank where it occurred.
    """
    kind, text, origin = failure
    return mark_shared(error or {k.__name__: k for k in _KEPT}.get(kind, RuntimeError)(text), origin)
