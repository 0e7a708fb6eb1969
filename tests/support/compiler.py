"""The C++ compiler for tests that need one."""

import os
import shutil

import pytest

COMPILER = next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)
# CI sets REQUIRE_COMPILER, so that there its absence is a failure.
needs_compiler = pytest.mark.skipif(
    COMPILER is None and not os.environ.get("REQUIRE_COMPILER"), reason="needs a C++ compiler: not run"
)
