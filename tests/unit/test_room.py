"""What runs write to disk, estimated before they run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from support.make import MICRO, load_micro

from hpc_saidpo.cli.compose import from_overrides
from hpc_saidpo.doctor import room
from hpc_saidpo.doctor.room import Room, Weights


def composed(*words):
    return from_overrides(["experiment=tiny", *words])


def test_weights_are_counted_from_the_headers_of_their_files(tmp_path):
    counted = room.weights_of(str(MICRO))
    stored = {id(p): p.numel() for p in load_micro().model.parameters()}
    assert counted == Weights(sum(stored.values()), "F32")
    for number, n in enumerate((10, 20)):
        save_file({"w": torch.ones(n, 3, dtype=torch.bfloat16)}, tmp_path / f"model-{number}.safetensors")
    assert room.weights_of(str(tmp_path)) == Weights(90, "BF16")
    assert room.weights_of(str(tmp_path / "nothing")) is None


@pytest.mark.parametrize("keep, n", [("all", 5), ("last", 2), ("best", 3)])
@pytest.mark.parametrize("precision, each", [("auto", 4), ("bfloat16", 2)])
def test_the_bytes_are_those_of_the_kept_policies_and_a_checkpoint(keep, n, precision, each):
    config = composed("loop.iterations=5", f"loop.keep={keep}", f"policy.save_precision={precision}")
    weights = room.weights_of(str(MICRO))
    one, three = room.needed([config]), room.needed([config] * 3)
    assert one.n_bytes == weights.n * (n * each + 12)
    assert three == Room(3 * one.n_bytes, 3 * one.n_files)


def test_a_policy_without_headers_is_estimated_by_what_is_known_of_it():
    config = composed("policy.path=/no/model", "loop.iterations=1")
    assert room.needed([config]) is None
    assert room.needed([config], Weights(10, "F32")).n_bytes == 160
    text, problem = room.compare(Path(MICRO), None, 1)
    assert "GiB" in text and not problem


def test_too_little_room_is_told_also_of_inodes(monkeypatch, tmp_path):
    monkeypatch.setattr(room.os, "statvfs", lambda path: SimpleNamespace(f_bavail=2**30, f_frsize=1, f_favail=100))
    assert room.compare(tmp_path / "new", Room(2.0**29, 99), 1) == (
        "1 GiB and 100 files free; the run writes about 512.0 MiB in 99 files",
        "",
    )
    for wanted in (Room(2.0**31, 9), Room(9, 101)):
        text, problem = room.compare(tmp_path, wanted, 15)
        assert "15 runs write" in text and "loop.keep=last" in problem
    assert str(Room(3 * 2.0**40, 1000)) == "about 3.0 TiB in 1,000 files"
