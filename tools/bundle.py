#!/usr/bin/env python3
"""The program that tools/bundle.sh starts; that file has its usage. Only collecting needs more than plain Python."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle_check import HERE, BundleError, install, verify

from hpc_saidpo import terminal


def main(words: Sequence[str]) -> int:
    """Collect, verify or install a bundle. Returns the exit code."""
    terminal.guard()
    end = [*words, "--"].index("--")
    parser = argparse.ArgumentParser(prog="tools/bundle.sh")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument("--quick", action="store_true", help="with --verify: sizes only")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--python", default=HERE, help="the compute nodes' Python (default: the one running this)")
    parser.add_argument("--cuda", help="which build of torch: cu130, cpu, ... (default: PyPI's)")
    parser.add_argument("--extra", action="append", default=[], help="of setup.py: gpu, gpu12, ...")
    parser.add_argument("--no-wheels", action="store_true", help="leave wheels/ as it is")
    parser.add_argument("folder", type=Path)
    parser.add_argument("venv", type=Path, nargs="?", help="with --install")
    arguments = parser.parse_args(words[:end])
    if arguments.install != (arguments.venv is not None):
        parser.error("--install takes FOLDER and VENV, the rest FOLDER alone; overrides come after --")
    if not re.fullmatch(r"3\.\d+", arguments.python):
        parser.error(f"--python {arguments.python}: must be a version such as 3.12")
    try:
        if arguments.install:
            return install(arguments.folder, arguments.venv)
        if arguments.verify:
            return verify(arguments.folder, arguments.quick)
        from bundle_collect import collect
        from bundle_wheels import Target

        target = None if arguments.no_wheels else Target(arguments.python, arguments.cuda, tuple(arguments.extra))
        return collect(arguments.folder, target, words[end + 1 :], arguments.python)
    except (BundleError, OSError) as error:
        terminal.complain("bundle", error)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
