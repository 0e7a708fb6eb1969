"""hpc_saidpo: self-aware iterative DPO with dynamic sampling (SAI-DPO, arXiv 2505.16176) for HPC clusters."""

__version__ = "0.1.0"
