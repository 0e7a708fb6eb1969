"""The programs: `python -m hpc_saidpo VERB` and `hpc-saidpo VERB`. The only package that imports Hydra."""
