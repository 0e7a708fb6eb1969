import shutil

import pytest
import torch
from support.generating import tiny
from support.make import MICRO

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy import locate, model, plain
from hpc_saidpo.policy.decoded import decoder_of

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
