"""Names from outside that become paths: of runs and benchmarks, and the entries of lists of files.

Whatever a setting, a file or the command line names goes through here before it is joined to a folder.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

LONGEST = 180  # bytes of a name; a file system permits 255, and numbers, endings and temporary names are added
_EXAMPLE = 40  # characters of a name that a message suggests
_LONGEST_PART = 255  # bytes of a part of a path that exists already
# Control characters, separators of lines, marks that change the direction of writing, halves of characters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
RULE = f"write a name of at most {LONGEST} bytes with no '/', no control character, and no dot at its beginning"


def fault_of(name: str) -> str:
    """Return why a text cannot be the name of a file or folder, as the end of a sentence; "" if it can."""
    if not name:
        return "is empty"
    if name.startswith("."):
        return "begins with a dot"
    if "/" in name:
        return "contains a '/'"
    if _UNSEEN.search(name):
        return "contains a control character"
    return f"is longer than {LONGEST} bytes" if len(name.encode()) > LONGEST else ""


def require_name(name: str) -> str:
    """Return a name that may become one part of a path.

    Raises:
        ValueError: it may not. The message says why, and what to write.
    """
    if fault := fault_of(name):
        near = as_name(name)
        example = near if near.strip("_") and len(near) <= _EXAMPLE else "demo"
        raise ValueError(f"the name {fault}: {RULE}, for example {example}")
    return name


def as_name(text: str, longest: int = LONGEST) -> str:
    """Return a valid name that is made of a text. A long one is cut, and ends with a hash of the whole text.

    Args:
        longest: bytes of the name, at most.
    """
    name = re.sub(r"[^\w.,=+-]+", "_", text).lstrip(".") or "_"
    content = name.encode()
    if len(content) <= longest:
        return name
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{content[: longest - 13].decode(errors='ignore')}-{digest}"


def below(folder: Path, entry: object) -> Path:
    """Return the path of an entry of a list of files, which is relative to a folder. It may be a link to elsewhere.

    Raises:
        ValueError: it is no relative path without `..`.
    """
    if not isinstance(entry, str) or not all(map(_is_part, entry.split("/"))):
        raise ValueError(f"{entry!r:.300} is no relative path without '..' and control characters")
    return folder / entry


def inside(folder: Path, entry: str) -> Path:
    """Return the path of an entry as `below`, which lies in the folder itself.

    Raises:
        ValueError: as `below`; or a link leads out of the folder.
    """
    below(folder, entry)
    path = folder
    for part in entry.split("/"):
        path /= part
        if path.is_symlink() and not _leads_inside(path, folder):
            raise ValueError(f"{entry!r} leads out of the folder by a link")
    return path


def _leads_inside(link: Path, folder: Path) -> bool:
    try:
        return link.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # links that lead to each other
        return False


def _is_part(part: str) -> bool:
    return part not in ("", ".", "..") and not _UNSEEN.search(part) and len(part.encode()) <= _LONGEST_PART
