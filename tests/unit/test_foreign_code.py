"""Code in downloaded folders is never run, and no library asks a person whether it may."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.make import MICRO

from hpc_saidpo.cli.environment import DEFAULTS
from hpc_saidpo.clusters import embed
from hpc_saidpo.doctor import room
from hpc_saidpo.doctor.inputs import _encoder, _weights
from hpc_saidpo.doctor.memory import model_at
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy.locate import fingerprint, locate
from hpc_saidpo.policy.read import read_config, read_tokenizer, read_weights, skeleton
from hpc_saidpo.pool.sources import resolve
from hpc_saidpo.settings import Clusters

HOME = Path(__file__).parents[2]
CPU = torch.device("cpu")
SOURCES = sorted([*(HOME / "hpc_saidpo").rglob("*.py"), *(HOME / "tools").rglob("*.py")])
LOADERS = ("from_pretrained", "from_config", "SentenceTransformer", "CrossEncoder", "pipeline", "LLM")


def calls(path):
    """(name, keywords, line) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, {word.arg: word.value for word in node.keywords}, node.lineno


def test_every_call_that_loads_a_model_refuses_its_code():
    loading = [
        (f"{path.relative_to(HOME)}:{line}", keywords)
        for path in SOURCES
        for name, keywords, line in calls(path)
        if name in LOADERS
    ]
    assert len(loading) > 10
    trusting = [
        place
        for place, keywords in loading
        if not isinstance(value := keywords.get("trust_remote_code"), ast.Constant) or value.value is not False
    ]
    # The engine `vllm` has it in its dictionary of arguments, which `test_vllm` reads.
    assert [place for place in trusting if "vllm" not in place] == []


def test_no_call_reads_pickles_or_answers():
    for path in SOURCES:
        for name, keywords, line in calls(path):
            assert name != "input", f"{path}:{line}"
            weights_only = keywords.get("weights_only")
            assert weights_only is None or getattr(weights_only, "value", None) is True, f"{path}:{line}"
    assert DEFAULTS["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


@pytest.fixture
def mark(tmp_path):
    """A file that the code in a folder would write."""
    path = tmp_path / "was-run"
    yield path
    assert not path.exists()


@pytest.fixture
def policy(tmp_path):
    return Path(shutil.copytree(MICRO, tmp_path / "policy"))


@pytest.fixture
def encoder(tmp_path):
    return Path(shutil.copytree(locate(Clusters().encoder), tmp_path / "encoder"))


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def add_code(folder, mark, **changes):
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass M: pass\n")
    classes = {name: "evil.M" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")}
    edit(folder / "config.json", auto_map=classes, **changes)
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.M", "evil.M"]})


def test_code_of_an_unknown_model_is_refused(policy, mark):
    add_code(policy, mark, model_type="evil")
    for read in (read_config, read_weights, skeleton):
        with pytest.raises(RunError, match=r"code of its own \(auto_map\), and code in a folder is never run"):
            read(str(policy))
    with pytest.raises(ValueError, match="trust_remote_code"):
        model_at(str(policy))


def test_code_beside_a_known_model_is_ignored(policy, mark):
    add_code(policy, mark)
    assert type(read_weights(str(policy))).__name__ == "LlamaForCausalLM"
    assert type(skeleton(str(policy))).__name__ == "LlamaForCausalLM"
    assert model_at(str(policy)).n_layers and len(read_tokenizer(str(policy)))


class Evil:
    """Its pickle runs a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_file_of_weights_with_foreign_objects_is_refused(policy, mark):
    weights = load_file(policy / "model.safetensors")
    (policy / "model.safetensors").unlink()
    torch.save(weights, policy / "pytorch_model.bin")
    assert read_weights(str(policy)) is not None
    torch.save({**weights, "extra": Evil(mark)}, policy / "pytorch_model.bin")
    with pytest.raises(RunError, match=r"holds more than tensors, which may run code: use safetensors"):
        read_weights(str(policy))


def list_module(folder, **changes):
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1] |= changes
    (folder / "modules.json").write_text(json.dumps(modules))


def add_dense(folder, activation, weights):
    modules = json.loads((folder / "modules.json").read_text())
    module = {"idx": 9, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules, module]))
    (folder / "9_Dense").mkdir()
    facts = {"in_features": 384, "out_features": 4, "bias": True, "activation_function": activation}
    (folder / "9_Dense" / "config.json").write_text(json.dumps(facts))
    torch.save(weights, folder / "9_Dense" / "pytorch_model.bin")


TANH = "torch.nn.modules.activation.Tanh"
DENSE = {"linear.weight": torch.zeros(4, 384), "linear.bias": torch.zeros(4)}
CODE = {
    "a module of the folder": lambda f, mark: list_module(f, type="evil.M"),
    "a function": lambda f, mark: list_module(f, type="os.system"),
    "a module that names classes": lambda f, mark: list_module(f, type="sentence_transformers.models.Router"),
    "a name like that of the package": lambda f, mark: list_module(f, type="sentence_transformers_.models.Pooling"),
    "something else of the package": lambda f, mark: list_module(f, type="sentence_transformers.util.torch"),
    "a folder above": lambda f, mark: list_module(f, path="../policy"),
    "an activation": lambda f, mark: add_dense(f, "evil.M", DENSE),
}


@pytest.mark.parametrize("kind", CODE)
def test_code_that_an_encoder_names_is_refused_before_it_is_loaded(encoder, mark, monkeypatch, kind):
    (encoder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass M: pass\n")
    monkeypatch.syspath_prepend(encoder)
    CODE[kind](encoder, mark)
    with pytest.raises(RunError, match="is damaged, or names code that is never run"):
        embed.load(str(encoder), CPU)
    assert "names code that is never run" in _encoder(encoder)


def test_code_of_an_encoders_transformer_is_refused(encoder, mark):
    add_code(encoder, mark, model_type="evil")
    edit(encoder / "sentence_bert_config.json", model_args={"trust_remote_code": True})
    with pytest.raises(RunError, match=r"code in a folder is never run"):
        embed.load(str(encoder), CPU)


def test_weights_of_an_encoder_with_foreign_objects_are_refused(encoder, mark):
    add_dense(encoder, TANH, DENSE)
    assert _encoder(encoder) == "" and embed.load(str(encoder), CPU) is not None
    torch.save({**DENSE, "extra": Evil(mark)}, encoder / "9_Dense" / "pytorch_model.bin")
    with pytest.raises(RunError, match="holds more than tensors"):
        embed.load(str(encoder), CPU)


@pytest.mark.parametrize("name", ["../policy/model.safetensors", "/etc/passwd", "", 1, None])
def test_an_index_of_weights_names_files_of_its_folder_alone(policy, name):
    (policy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    assert "model.safetensors.index.json is damaged" in _weights(policy)


@pytest.mark.parametrize("name", ["../secret.arrow", "/etc/passwd", 1])
def test_a_saved_dataset_names_files_of_its_folder_alone(tmp_path, name):
    (tmp_path / "secret.arrow").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(RunError, match=r"state\.json damaged"):
        resolve([str(tmp_path / "data")])


def test_pipes_among_the_weights_are_not_waited_for(policy):
    os.mkfifo(policy / "other.safetensors")
    os.mkfifo(policy / "other.bin")
    assert "is no ordinary file" in _weights(policy)
    assert fingerprint(str(policy)) == fingerprint(str(MICRO)) and room.weights_of(str(policy)) == room.weights_of(
        MICRO
    )


@pytest.mark.parametrize(
    "path", ["pkg://hpc_saidpo/../tests", "pkg://hpc_saidpo//etc", "pkg:///x", "pkg://.x/y", "pkg://a.b/c"]
)
def test_a_file_of_a_package_lies_in_the_package(path):
    with pytest.raises(RunError, match=r"contains no|is not installed"):
        locate(path)


ASKING = """
import sys, os
sys.path.insert(0, {home!r})
from hpc_saidpo.cli.main import main
try:
    main({words!r})
except SystemExit:
    pass
print(repr(sys.stdin.read()), os.readlink("/proc/self/fd/0"))
"""


@pytest.mark.parametrize("words", [["status", "/nowhere"], ["verify", "/nowhere"]])
def test_stdin_is_empty_for_libraries(words):
    """A verb without heavy imports: the first lines of every verb are the same."""
    program = ASKING.format(home=str(HOME), words=words)
    done = subprocess.run([sys.executable, "-c", program], input="y\n", capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("'' /dev/null\n"), done.stdout + done.stderr
