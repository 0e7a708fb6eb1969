"""Objects of the user's modules, which a setting names as `package.module:name`."""

from __future__ import annotations

import difflib
import importlib
import re
import traceback
from collections.abc import Mapping
from typing import TypeVar

from .errors import RunError, shown, words_of

T = TypeVar("T")
_REFERENCE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_reference(name: str) -> bool:
    """Whether a name has the form `package.module:name`."""
    return _REFERENCE.fullmatch(name) is not None


def choose(key: str, name: str, known: Mapping[str, T], kind: type[T]) -> T:
    """Return the object that a setting names: one of the package's, or `package.module:name` of the user.

    Args:
        key: the setting, for messages, such as "sampler.rule".
        name: the value of the setting.
        known: the package's objects by name.
        kind: class that an object of the user must have.

    Raises:
        RunError: there is no such name, no such module, or the object has another class.
    """
    if name in known:
        return known[name]
    if ":" not in name:
        raise RunError(f"{key}={name}: there is no such name{_nearest(name, known)} {valid(known)}")
    value = load(key, name)
    if not isinstance(value, kind):
        raise RunError(
            f"{key}={name}: it must be an object of the class {kind.__module__}.{kind.__name__}, "
            f"but it is {describe(value)}"
        )
    return value


def load(key: str, name: str) -> object:
    """Import the module of `package.module:name` and return the object. A module is imported once per process.

    Raises:
        RunError: the name has another form, the module cannot be imported, or has no such object; the message names
            the key, the module and the reason.
    """
    if not is_reference(name):
        raise RunError(f"{key}={name}: an object of your own is named as package.module:name")
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise RunError(f"{key}={name}: {_why_no_module(module_name, error)}") from error
    if not hasattr(module, attribute):
        place = getattr(module, "__file__", None) or "a namespace package"
        names = [n for n in vars(module) if not n.startswith("_")]
        raise RunError(
            f"{key}={name}: the module {module_name} ({shown(place)}) has no {attribute!r}{_nearest(attribute, names)}"
        )
    return getattr(module, attribute)


def valid(known: Mapping[str, object]) -> str:
    """The names that a setting accepts, as one sentence."""
    return f"Valid names: {', '.join(known)}; or package.module:name for an object of your own"


def describe(value: object) -> str:
    """The kind of an object, for messages: the class X itself, the function f, an object of the class X."""
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"an object of the class {type(value).__name__}"


def _why_no_module(module: str, error: BaseException) -> str:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(f"{missing}.")):
        return (
            f"there is no module {missing!r}: install its package in this environment, or add the folder that holds it "
            "to PYTHONPATH"
        )
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"the module {module} cannot be imported: {words_of(error, with_type=True)}{place}"


def _nearest(name: str, names: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
