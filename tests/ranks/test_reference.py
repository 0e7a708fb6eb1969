"""Reference log-probabilities are computed once for a policy and its pairs, whatever becomes of the round."""

import numpy as np
import pytest
from support.make import MICRO, load_micro, make_pairs
from support.training import Killed, killed_after, watched

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.clusters.stage import Clustered
from hpc_saidpo.policy import locate
from hpc_saidpo.policy.cache import forget_policies
from hpc_saidpo.pool.pool import Pool
from hpc_saidpo.stages import Job
from hpc_saidpo.store.run import RunDir

pytestmark = [pytest.mark.mpi, pytest.mark.several]


@pytest.fixture
def rounds(folder, world):
    """A function that does the DPO round of a run, perhaps killed at its first step; returns what was displayed."""

    def rounds(name, *overrides, pairs=None, path=MICRO, killed=False):
        forget_policies()
        changed = ("experiment=tiny", "dpo.batch_pairs=8", "dpo.checkpoint_minutes=null", *overrides)
        config = compose.from_overrides(changed)
        opened = RunDir.open(settings.Run(root=str(folder), name=name), {"run": name}, {}, world, lambda words: None)
        with opened as run, killed_after(1) if killed else watched() as labels:
            job = Job(config, run, Pool([]), [], Clustered(np.zeros(0, dtype=np.int64), {}))
            try:
                job.iteration(0, path).train(pairs or make_pairs(6))
            except Killed:
                labels.append("killed")
            finally:
                world.barrier()
        world.barrier()
        return [label.split(":")[0] for label in labels]

    return rounds


BOTH, ROUND = ["reference log-probabilities", "DPO"], ["DPO"]


def test_once_for_a_policy_and_its_pairs(rounds, folder, world):
    assert rounds("a", killed=True) == [*BOTH, "killed"]
    assert rounds("a") == ROUND  # there was no checkpoint
    other = ("dpo.lr=1e-4", "dpo.epochs=2", "dpo.loss=ipo", "dpo.batch_pairs=4", "dpo.lora.rank=2")
    assert rounds("other settings", *other) == ROUND  # none of them is part of the key
    for i, setting in enumerate(("rollouts.stop=[zz]", "policy.precision=bfloat16", "dpo.micro_pairs=1")):
        assert rounds(f"computed {i}", setting) == BOTH, setting
    assert rounds("other pairs", pairs=make_pairs(6, seed=1)) == BOTH
    assert rounds("another order", pairs=make_pairs(6).take(range(5, -1, -1))) == BOTH


def test_again_for_changed_weights_also_at_the_same_path(rounds, folder, world):
    path = folder / "model"
    for change in (0.0, 1e-3):

        def save(change=change):
            changed = load_micro()
            next(changed.model.parameters()).data += change
            changed.save(path)

        world.on_root(save)
        assert rounds(f"run {change}", path=str(path)) == BOTH
        assert rounds(f"again {change}", path=str(path)) == ROUND


def test_a_round_with_stored_ones_is_the_round(rounds, folder, world):
    """Bit for bit, and of damaged ones they are computed again."""

    def weights(name):
        return locate.fingerprint(str(folder / name / "iter-000/policy/model"))

    assert (rounds("first"), rounds("second")) == (BOTH, ROUND)
    assert weights("first") == weights("second")
    (kept,) = (folder / ".shared").glob("reference-*")
    world.barrier()
    world.on_root(lambda: (kept / "reference.h5").write_bytes(b"\0" * (kept / "reference.h5").stat().st_size))
    assert rounds("third") == BOTH and weights("third") == weights("first")
