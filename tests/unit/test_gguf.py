"""GGUF files whose rotary embeddings are scaled: converted rightly, or refused."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from hpc_saidpo.errors import RunError
from hpc_saidpo.policy.gguf import LLAMA3, convert_gguf, rope_scaling

SIZE, THETA = 8, 500_000.0
CONFIG = LlamaConfig(
    hidden_size=32, num_attention_heads=4, max_position_embeddings=131_072,
    rope_parameters={"rope_type": "default", "rope_theta": THETA},
)  # fmt: skip


def written(folder, tensors=(), **scaling):
    """A GGUF file with these fields of `llama.rope.scaling` and these tensors."""
    path = str(folder / "model.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_rope_freq_base(THETA)
    for name, value in scaling.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"llama.rope.scaling.{name}", value)
    for name, tensor in dict(tensors).items():
        writer.add_tensor(name, np.asarray(tensor, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def frequencies(scaling):
    """[F] of the rotary embeddings of a configuration."""
    parameters = {**CONFIG.rope_parameters, **scaling}
    config = LlamaConfig(**{**CONFIG.to_dict(), "rope_parameters": parameters})
    return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))[0]


def plain():
    return THETA ** -(torch.arange(0, SIZE, 2) / SIZE)


@pytest.mark.parametrize("scaling", [{}, {"type": "none"}, {"type": "linear", "factor": 1.0}])
def test_a_file_without_scaling(tmp_path, scaling):
    assert rope_scaling(written(tmp_path, **scaling), CONFIG) == {}


def test_linear_scaling_divides_every_frequency(tmp_path):
    scaling = rope_scaling(written(tmp_path, type="linear", factor=4.0), CONFIG)
    torch.testing.assert_close(frequencies(scaling), plain() / 4)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_is_known_by_the_divisors_of_its_frequencies(tmp_path, factor):
    exact = frequencies({"rope_type": "llama3", "factor": factor, **LLAMA3})
    scaling = rope_scaling(written(tmp_path, {"rope_freqs.weight": plain() / exact}), CONFIG)
    assert scaling["rope_type"] == "llama3" and scaling["factor"] == factor
    torch.testing.assert_close(frequencies(scaling), exact)


@pytest.mark.parametrize(
    "tensors, scaling, says",
    [
        ({}, {"type": "yarn", "factor": 4.0}, "type yarn, factor 4.0"),
        ({"rope_freqs.weight": [1.0, 2.0, 3.0, 4.0]}, {}, "tensor rope_freqs.weight"),
        ({"rope_factors_long.weight": [1.0] * 4, "rope_factors_short.weight": [1.0] * 4}, {}, "rope_factors_short"),
    ],
)
def test_other_scaling_is_refused(tmp_path, tensors, scaling, says):
    with pytest.raises(RunError, match=f"{says}.*use the model's Hugging Face folder"):
        rope_scaling(written(tmp_path, tensors, **scaling), CONFIG)


@pytest.mark.parametrize("n_bytes", [0, 4, 20, 100])
def test_a_file_that_was_cut_short_is_refused(tmp_path, n_bytes):
    whole = Path(written(tmp_path))
    whole.write_bytes(whole.read_bytes()[:n_bytes])
    with pytest.raises(RunError, match=r"model\.gguf: not readable as GGUF .*: copy it again"):
        convert_gguf(str(whole), tmp_path / "converted")
