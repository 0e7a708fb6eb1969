"""`python -m hpc_saidpo [VERB] ...`; on ranks: `mpiexec -n 2 python -m mpi4py -m hpc_saidpo [VERB] ...`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
