"""Environment variables that must be set before heavy libraries are imported. Import this module first."""

from __future__ import annotations

import os

DEFAULTS = {
    # Compute nodes have no internet access: a missing file must be an error, not a hang.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",  # a .bin file is a pickle: only tensors are read of it, whoever reads it
    "HDF5_USE_FILE_LOCKING": "FALSE",  # the store needs no locks, and Lustre or NFS may support none
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # torch needs it for deterministic CUDA
    # A rank that waits in MPI yields its core to a rank that computes (MPICH; other libraries ignore it).
    "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
    "WANDB_ERROR_REPORTING": "false",  # an export to an offline folder sends nothing
    # Hydra would print a shortened traceback; the traceback of this package names the rank.
    "HYDRA_FULL_ERROR": "1",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
