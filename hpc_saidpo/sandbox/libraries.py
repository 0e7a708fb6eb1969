"""The program that lists the shared libraries of Python's standard library: the files to show to code in the sandbox.

Python loads a module of C when it is imported, and with it its libraries. Their folders may hold anything; so they are
listed once for all modules, by loading each of them, and the sandbox shows these files alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys

from . import kernel

_LOADER_CACHE = "/etc/ld.so.cache"  # where the loader looks for libraries in folders that it does not know


def main() -> None:
    """Write the list as JSON."""
    print(json.dumps(find()))


def find() -> list[str]:
    """Absolute names of shared libraries, each as the loader finds it, and of the loader's cache; sorted."""
    for folder in filter(os.path.isdir, sys.path):
        for module in os.listdir(folder):
            if module.endswith(".so"):
                with contextlib.suppress(OSError):  # one of its libraries is not installed: the module is not usable
                    ctypes.CDLL(os.path.join(folder, module), mode=os.RTLD_LAZY)
    names = [name for name in kernel.libraries() if not any(name.startswith(f"{folder}/") for folder in sys.path)]
    return sorted({*names, *filter(os.path.exists, [_LOADER_CACHE])})
