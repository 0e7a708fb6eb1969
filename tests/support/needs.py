"""Marks of tests that need what a machine may lack. CI lets none of them pass unseen (MAY_BE_MISSING, conftest.py)."""

import shutil

import pytest

from hpc_saidpo import settings
from hpc_saidpo.grader.code import obstacle

COMPILER = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler: not run")
needs_sandbox = pytest.mark.skipif(
    bool(obstacle(settings.Grader())), reason="not run: the kernel does not let this user confine programs"
)
