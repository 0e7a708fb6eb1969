import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support.generating import tiny
from support.make import MICRO, load_micro

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy import locate, model, plain
from hpc_saidpo.policy.decoded import decoder_of
from hpc_saidpo.policy.model import Policy

CPU = torch.device("cpu")


def test_save_and_load_keep_every_weight(micro, tmp_path):
    micro.save(tmp_path)
    back = model.Policy.load(str(tmp_path), settings.Policy(path="x"), CPU)
    for name, tensor in micro.model.state_dict().items():
        assert torch.equal(tensor, back.model.state_dict()[name]), name
    assert back.tokenizer("12+3\n")["input_ids"] == micro.tokenizer("12+3\n")["input_ids"]


def test_a_finished_response_is_trained_with_its_end(micro):
    eos = micro.tokenizer.eos_token_id
    assert micro.encode_response("7", True, ())[-1] == eos
    assert eos not in micro.encode_response("7", False, ())
    assert micro.tokenizer.decode(micro.encode_response("7", True, ("\n",))) == "7\n"


def test_a_folder_without_tokenizer_is_named(tmp_path):
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copy(f"{MICRO}/{name}", tmp_path)
    with pytest.raises(RunError, match="tokenizer") as error:
        model.Policy.load(str(tmp_path), settings.Policy(path="x"), CPU)
    assert str(tmp_path) in str(error.value) and "save_pretrained" in str(error.value)


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(RunError, match=r"policy\.path=.*nowhere"):
        model.Policy.load(str(tmp_path / "nowhere"), settings.Policy(path="x"), CPU)


def test_pkg_paths():
    assert locate.locate("/plain/path") == "/plain/path"
    with pytest.raises(RunError, match="not installed"):
        locate.locate("pkg://no_such_package_here/model")
    with pytest.raises(RunError, match="contains no"):
        locate.locate("pkg://hpc_saidpo/no_such_folder")


def test_a_model_without_chat_template_says_so(micro):
    with pytest.raises(RunError, match="rollouts/prompt=plain"):
        micro.chat_template([{"role": "user", "content": "hi"}])


def test_too_long_a_prompt_is_refused(micro):
    with pytest.raises(RunError, match="max_new_tokens"):
        model.check_length(micro, micro.model.config.max_position_embeddings + 1)


@pytest.mark.parametrize("chosen", ["auto", "bfloat16"])
@pytest.mark.parametrize("by_file", [True, False])
def test_weights_are_saved_in_bfloat16_where_the_policy_is_stored_in_it(micro, tmp_path, monkeypatch, chosen, by_file):
    """Also a model whose weights have other names in files than in memory, which transformers saves as a whole."""
    monkeypatch.setattr("hpc_saidpo.policy.model.is_stored_as_computed", lambda model: by_file)
    stored = load_micro()
    stored.saved = torch.bfloat16 if chosen == "auto" else torch.float32
    stored.save(tmp_path / "base")
    policy = Policy.load(str(tmp_path / "base"), settings.Policy(path="x", save_precision=chosen), torch.device("cpu"))
    policy.save(tmp_path / "saved", file_bytes=100_000)
    assert all(w.dtype == torch.float32 for w in policy.model.state_dict().values())  # those in memory stay
    tensors = {}
    for file in (tmp_path / "saved").glob("*.safetensors"):
        tensors |= load_file(file)
    assert {w.dtype for w in tensors.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["dtype"] == "bfloat16"
    again = Policy.load(str(tmp_path / "saved"), settings.Policy(path="x"), torch.device("cpu"))
    assert again.saved == torch.bfloat16
    for name, weight in micro.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], weight.to(torch.bfloat16).float())


def test_weights_are_saved_in_float32_where_it_is_requested_or_the_policy_is_stored_in_it(tmp_path):
    stored = load_micro()
    assert stored.saved == torch.float32
    stored.saved = torch.bfloat16
    stored.save(tmp_path)
    asked = Policy.load(str(tmp_path), settings.Policy(path="x", save_precision="float32"), torch.device("cpu"))
    assert asked.saved == torch.float32


def test_windows_are_short_while_a_model_is_tried_out(micro):
    model = tiny(micro, "mistral-sliding").model
    model.config.sliding_window = 4096
    before = [vars(part).get("sliding_window") for part in (*model.modules(), model.config)]
    with plain.short_windows(model):
        assert model.config.sliding_window == plain.SHORT
    assert [vars(part).get("sliding_window") for part in (*model.modules(), model.config)] == before


def test_the_decoder_is_the_only_model_inside_one_that_names_another(micro, monkeypatch):
    model = tiny(micro, "mistral-sliding").model
    assert decoder_of(model) is model.model and decoder_of(model.model) is model.model
    monkeypatch.setattr(type(model), "base_model_prefix", "language_model")
    assert model.base_model is model and decoder_of(model) is model.model
