"""Vectors of knowledge points, made by several ranks together."""

import numpy as np
import pytest
from support.pools import run_dir

from hpc_saidpo import settings
from hpc_saidpo.clusters import embed
from hpc_saidpo.clusters.embed import Embedding
from hpc_saidpo.clusters.stage import embed_all


@pytest.mark.mpi
def test_ranks_make_the_vectors_of_one_process(folder, world):
    text_N, config = [f"topic {i} of algebra" for i in range(150)] * 2, settings.Clusters()
    made = embed_all(text_N, config, run_dir(folder, world)).read_chunks(Embedding)
    parts = embed.chunks(text_N)
    model = embed.load(config.encoder, world.device)
    alone = Embedding.concat([embed.embed(part, model, config.batch) for part in parts])
    assert list(made.text_U) == alone.text_U and len(parts) == 3
    assert np.array_equal(made.vector_UD, alone.vector_UD)
