"""mpiexec -n 2 python -m mpi4py -m hpc_saidpo experiment=demo"""

from .command import main

if __name__ == "__main__":
    main()
