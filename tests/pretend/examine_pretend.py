"""Make checks of `doctor --gpu` on the device `pretend`, and print a line of JSON for each.

python examine_pretend.py LIBRARY [NAME ...]     without names: all checks
"""

import json
import os
import sys
from pathlib import Path

import hpc_saidpo.cli.environment  # noqa: F401 - before heavy imports, as the program does

import pretend_device  # isort: skip
import torch

from hpc_saidpo.doctor.device.examine import CHECKS, examine


def main(library: str, *names: str) -> None:
    torch.set_num_threads(1)
    device = pretend_device.load(Path(library))
    checks = [check for check in CHECKS if not names or check.name in names]
    for result in examine(device, 60, None, lambda line: None, checks):
        print(json.dumps([result.name, result.state, result.text]), flush=True)
    os._exit(0)  # threads of the autograd engine for such a device end with an abort


main(*sys.argv[1:])
