"""A checkpoint is whole or is not read, whatever happened to it or to the ranks that wrote it."""

import resource
import shutil

import pytest
import torch
from support.training import Killed, killed_after, train_by, watched

from hpc_saidpo.dpo.checkpoint import Checkpoint
from hpc_saidpo.errors import RunError
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.mpi


def killed(world, folder, strategy="fsdp", at=2, minutes=0.0) -> Stage:
    stage = Stage(folder)
    world.on_root(stage.prepare)
    with pytest.raises(Killed), killed_after(at):
        train_by(world, strategy, checkpoint=(stage, minutes))
    world.barrier()
    return stage


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "single"])
def test_one_checkpoint_is_there_at_a_time_with_a_file_from_every_rank_that_has_something(world, folder, strategy):
    killed(world, folder, strategy, at=3)
    assert names(folder) == ["checkpoint-000003"]
    n_files = 1 if strategy == "single" else world.size
    wanted = [f"shard-{rank + 1:05d}-model-00001-of-00001.safetensors" for rank in range(n_files)]
    assert names(folder / "checkpoint-000003") == ["facts.json", *wanted]


@pytest.mark.parametrize("damage", ["lost", "cut off", "facts"])
def test_a_damaged_checkpoint_is_named_on_every_rank(world, folder, damage):
    stage = killed(world, folder)
    last = folder / "checkpoint-000002" / f"shard-{world.size:05d}-model-00001-of-00001.safetensors"

    def spoil():
        if damage == "lost":
            last.unlink()
        elif damage == "cut off":
            last.write_bytes(last.read_bytes()[:-100])
        else:
            (folder / "checkpoint-000002" / "facts.json").write_text("{")

    world.on_root(spoil)
    with pytest.raises(
        RunError, match=r"checkpoint-000002: the checkpoint is not readable .*\. Move it away, and start"
    ):
        train_by(world, "fsdp", checkpoint=(stage, None))
    world.on_root(lambda: (folder / "checkpoint-000002").rename(folder / "away"))
    train_by(world, "fsdp", checkpoint=(stage, None))


def test_what_is_half_written_or_half_removed_is_not_read(world, folder):
    stage = killed(world, folder)

    def like_a_killed_job():
        shutil.copytree(folder / "checkpoint-000002", folder / ".checkpoint-000003.0123456789abcdef.tmp")
        (folder / ".checkpoint-000003.0123456789abcdef.tmp" / "facts.json").write_text("{")
        shutil.copytree(folder / "checkpoint-000002", folder / "checkpoint-000001")  # its successor was just there
        (folder / "checkpoint-000001" / "facts.json").unlink()

    world.on_root(like_a_killed_job)
    with watched() as labels:
        train_by(world, "fsdp", checkpoint=(stage, None))
    assert labels == ["DPO: 20 pairs, from step 2 of 6"]


def test_a_disk_that_refuses_one_rank_is_everyones_failure_and_the_checkpoint_before_stays(world, folder):
    stage = killed(world, folder)
    before = names(folder / "checkpoint-000002")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if world.rank == world.size - 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(RunError, match=r"cannot write .*checkpoint-000003: File too large .*ulimit -f"):
            train_by(world, "fsdp", checkpoint=(stage, 0.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    world.barrier()
    assert names(folder) == ["checkpoint-000002"] and names(folder / "checkpoint-000002") == before


def test_roots_clock_decides_for_every_rank(world, folder):
    stage = Stage(folder)
    world.on_root(stage.prepare)
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    saved = Checkpoint(stage, 10.0, "key", world)
    mine = {"w": parameter} if world.is_root else {}
    saved._saved -= 0 if world.is_root else 3600  # the others' clocks say that it is time
    saved.save_if_due(mine, optimizer, [{}], torch.zeros(1, 2).numpy())
    assert names(folder) == []
    world.barrier()
    saved._saved -= 3600 if world.is_root else -3600
    saved.save_if_due(mine, optimizer, [{}], torch.zeros(1, 2).numpy())
    assert names(folder) == ["checkpoint-000001"]
