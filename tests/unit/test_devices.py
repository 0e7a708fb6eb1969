"""The GPU of each rank, from what all ranks see. Real GPUs are examined by `hpc-saidpo doctor`."""

import itertools

import pytest

from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.devices import Sight, Unusable, assign, obstacle
from hpc_saidpo.parallel.world import World


def sights(*gpus, given=0, per_node=4):
    """What the ranks see: a text with a letter for each GPU; "" for none."""
    return [
        Sight(
            rank=rank,
            host=f"n{rank // per_node}",
            node=rank // per_node * per_node,
            gpus=tuple(seen),
            n_given=given,
            obstacle="" if seen else "no NVIDIA driver",
        )
        for rank, seen in enumerate(gpus)
    ]


@pytest.mark.parametrize(
    "gpus, expected",
    [
        (("",) * 3, [None] * 3),
        (("a", "b", "c", "d"), [0, 0, 0, 0]),  # --gpus-per-task=1: a rank sees its own GPU
        (("abcd",) * 4, [0, 1, 2, 3]),  # --gpu-bind=none
        (("ab", "ab", "cd", "cd"), [0, 1, 0, 1]),  # --gpu-bind=closest
        (("ab", "a"), [1, 0]),  # the first rank gives its first choice away
        (("abc", "ab", "a"), [2, 1, 0]),
        (("ab",) * 8, [0, 1] * 4),  # two ranks on each of four nodes
    ],
)
def test_every_rank_has_a_gpu_of_its_own(gpus, expected):
    per_node = 2 if len(gpus) == 8 else 4
    assert assign(sights(*gpus, per_node=per_node), "auto") == expected


def test_a_gpu_is_found_whenever_there_is_one_for_each_rank():
    for seen in itertools.product(["a", "ab", "bc", "abc", "c"], repeat=3):
        possible = any(len(set(choice)) == 3 for choice in itertools.product(*seen))
        try:
            chosen = [gpus[index] for gpus, index in zip(seen, assign(sights(*seen), "gpu"), strict=True)]
            assert possible and len(set(chosen)) == 3
        except Unusable:
            assert not possible


@pytest.mark.parametrize(
    "gpus, given, requested, says",
    [
        (("a", "a"), 0, "auto", r"ranks 0, 1 on host n0 see 1 GPU, and rank 1 on host n0 would share one"),
        (("ab",) * 4, 0, "auto", r"ranks 0, 1, 2, 3 on host n0 see 2 GPUs.*--ntasks-per-node=2"),
        (("a", "b", "c", "d", ""), 0, "auto", r"rank 4 on host n1 sees no GPU \(no .*but rank 0 on host n0"),
        (("a", "b"), 4, "auto", r"Slurm gave host n0 4 GPUs, but ranks 0, 1 see 2"),
        (("",), 1, "auto", r"Slurm gave host n0 1 GPU, but rank 0 .* sees none: no NVIDIA .*run\.device=cpu"),
        (("",), 0, "gpu", r"run\.device=gpu, but rank 0 on host n0 sees no GPU: no NVIDIA driver"),
    ],
)  # fmt: skip
def test_worlds_that_would_not_use_their_gpus_are_refused(gpus, given, requested, says):
    with pytest.raises(Unusable, match=says):
        assign(sights(*gpus, given=given), requested)


def test_the_cpu_is_used_on_request_whatever_is_seen():
    assert assign(sights("a", "", "a", given=4), "cpu") == [None] * 3


def test_a_cpu_chosen_by_itself_has_its_reason(monkeypatch):
    world = World()
    assert world.use_device("cpu") == "cpu" and world.device.type == "cpu"
    monkeypatch.setattr("hpc_saidpo.parallel.devices.visible_gpus", tuple)
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert world.use_device() == "cpu (CUDA_VISIBLE_DEVICES= hides every GPU)"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for driver, cuda, says in (
        (None, None, "no NVIDIA driver"),
        (13000, None, "this torch is built for the CPU only"),
        (12040, "13.0", "the driver supports CUDA 12.4, this torch needs CUDA 13.0"),
        (13000, "13.0", "torch cannot use a GPU here"),
    ):
        monkeypatch.setattr("hpc_saidpo.parallel.devices.driver_cuda", lambda driver=driver: driver)
        monkeypatch.setattr("torch.version.cuda", cuda)
        assert obstacle().startswith(says)
    with pytest.raises(RunError, match=r"run\.device=gpu"):
        world.use_device("gpu")
