"""The ranks: the only package that imports mpi4py or torch.distributed.

MPI carries facts, the disk carries data, NCCL (Gloo on a CPU) carries gradients. Every rank calls every collective
method. torch is imported only where it is needed: the import costs seconds and 200 MB on every rank, and handing out
work items needs no torch.
"""
