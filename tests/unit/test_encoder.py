"""Sentence encoders that are damaged or make no vectors: one message that names the setting or the texts."""

import shutil
from pathlib import Path

import pytest
import torch

from hpc_saidpo.clusters import embed
from hpc_saidpo.doctor.inputs import _encoder
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy.locate import locate
from hpc_saidpo.settings import Clusters

ENCODER = Clusters().encoder
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(locate(ENCODER), tmp_path / "encoder"))


def test_vectors_that_are_not_finite_are_named_by_their_texts():
    model = embed.load(ENCODER, CPU)
    texts = ["addition; carrying", "fractions"]
    assert embed.embed(texts, model, 2).vector_UD.shape[0] == 2
    next(model.parameters()).data[:] = float("nan")  # the embeddings of tokens
    with pytest.raises(RunError, match=r"not finite of 2 texts, such as 'addition; carrying', 'fractions'"):
        embed.embed(texts, model, 2)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "weights": lambda f: half(f / "model.safetensors"),
    "tokenizer": lambda f: (f / "tokenizer.json").write_text("{"),
    "module": lambda f: (f / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "x.Y"}]'),
    "pooling": lambda f: shutil.rmtree(f / "1_Pooling"),
    "configuration": lambda f: (f / "config.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_encoder_is_refused(folder, damage):
    damage(folder)
    with pytest.raises(RunError, match=f"clusters.encoder={folder}: no sentence encoder there"):
        embed.load(str(folder), CPU)


@pytest.mark.parametrize("text", ["[", "[]", "{}", "[1]", '[{"name": "0"}]'])
def test_a_damaged_list_of_modules_is_a_missing_input(folder, text):
    (folder / "modules.json").write_text(text)
    assert "modules.json is damaged" in _encoder(folder)


def test_half_a_file_of_weights_is_a_missing_input(folder):
    assert _encoder(folder) == ""
    half(folder / "model.safetensors")
    assert f"{folder}/model.safetensors is damaged" in _encoder(folder)
