"""Preflight checks of a configuration on the nodes of a job: inputs, memory, disk, GPUs, ranks. Collective."""
