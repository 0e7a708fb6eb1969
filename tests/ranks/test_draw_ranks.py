"""Draws on several ranks."""

import numpy as np
import pytest

from hpc_saidpo.sampler.draw import draw


@pytest.mark.mpi
def test_every_rank_draws_the_same(world):
    log_N = np.log(np.random.default_rng(0).gamma(0.5, size=100_000))
    for drawn in world.gather(draw(log_N, 1000, 7).tolist()):
        assert drawn == draw(log_N, 1000, 7, block=1000 * (world.rank + 1)).tolist()
