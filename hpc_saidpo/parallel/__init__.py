"""The ranks: the only package that imports mpi4py or torch.distributed.

MPI carries facts, the disk carries data, NCCL (Gloo on CPU) carries gradients. Every rank calls every collective.
torch is imported where it is used: it takes seconds and 200 MB a rank, and handing out work does not need it.
"""
