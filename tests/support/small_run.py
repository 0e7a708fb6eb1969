"""A run of a few seconds, and what makes two runs the same."""

from pathlib import Path

from hpc_saidpo.store.check import check
from hpc_saidpo.store.compare import compare

# A loop of a few seconds beyond start-up.
SMALL = (
    "experiment=tiny", "loop.iterations=2", "pool.n=240", "pool.held_out=24", "clusters.n=6", "probe.fraction=0.15",
    "sampler.n_questions=60", "rollouts.k=4", "dpo.batch_pairs=8", "rollouts.chunk_questions=8",
)  # fmt: skip


def assert_same(a: Path, b: Path) -> None:
    """Two runs drew, rolled out, paired and trained the same."""
    differences = compare(a, b)
    assert not differences.notes, differences.notes
    assert not check(a).findings
