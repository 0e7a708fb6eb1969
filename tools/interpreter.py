"""Run a tool with a Python that has the project's requirements, whichever Python started it.

A tool imports this module right after the standard library, calls `require()`, and only then imports `hpc_saidpo` and
the libraries. `tools/submit.py` so works where the system's Python has no numpy.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
REQUIRED = ("h5py", "hydra", "numpy", "pydantic", "scipy", "torch", "transformers")


def require(*packages: str) -> None:
    """Continue with .venv's Python where this one lacks a requirement; make the checkout importable; guard the output.

    Args:
        packages: what this tool needs besides `REQUIRED`.

    Raises:
        SystemExit: no Python with the requirements was found; the message says what to do.
    """
    lacking = [name for name in (*REQUIRED, *packages) if importlib.util.find_spec(name) is None]
    if lacking:
        environment = HOME / ".venv"
        if Path(sys.prefix) != environment and (environment / "bin" / "python").exists():
            sys.stdout.flush()
            os.execv(environment / "bin" / "python", [str(environment / "bin" / "python"), *sys.argv])
        tool = sys.argv[0]
        print(
            f"{tool}: {sys.executable} does not have {', '.join(lacking)}. Run tools/setup.sh, which installs them in "
            f"{environment}, or start the tool with the Python that has the project: /path/to/python {tool}",
            file=sys.stderr,
        )
        sys.exit(2)
    if str(HOME) not in sys.path:
        sys.path.insert(0, str(HOME))
    from hpc_saidpo import terminal

    terminal.guard()
