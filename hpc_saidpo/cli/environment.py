"""Environment variables that must be set before heavy libraries are imported. Import this module first."""

from __future__ import annotations

import os

DEFAULTS = {
    # Compute nodes have no internet: what is not on disk must be an error, not a hang.
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HDF5_USE_FILE_LOCKING": "FALSE",  # the store needs no locks; Lustre or NFS may have none
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # torch needs it for deterministic CUDA
    # A rank that waits in MPI yields its core to one that computes (MPICH; others ignore it).
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
    # Hydra would print a shortened traceback of its own; ours names the rank.
    "HYDRA_FULL_ERROR": "1",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
