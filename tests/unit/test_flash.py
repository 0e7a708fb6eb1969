"""Where flash attention counts as usable. No test here reaches a GPU."""

import contextlib
import sys
import types

import pytest
import torch
from support.make import MICRO

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.policy import flash, model
from hpc_saidpo.policy.attention import attention_of
from hpc_saidpo.progress import log, say_once

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
BOTH = sorted(flash.MODULE_OF)


@pytest.fixture
def node(monkeypatch):
    """Makes a node: its GPU's capability, and what is installed as which module."""

    def make(capability, **modules):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        for name in flash.MODULE_OF.values():
            monkeypatch.delitem(sys.modules, name, raising=False)
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        find = flash.importlib.util.find_spec
        monkeypatch.setattr(flash.importlib.util, "find_spec", lambda name: modules.get(name) or find(name))
        for name, version in (("flash_attn", 2), ("flash_attn_interface", 3)):
            there = isinstance(modules.get(name), types.SimpleNamespace)
            monkeypatch.setattr(flash, f"is_flash_attn_{version}_available", lambda there=there: there)

    say_once.cache_clear()
    return make


def package(**more):
    return types.SimpleNamespace(flash_attn_with_kvcache=print, **more)


class Broken(types.ModuleType):
    def __getattr__(self, name):
        raise ImportError("undefined symbol: _ZN3c104cuda9SetDeviceEa")


def chosen(attention="auto", precision="auto", device=GPU):
    return attention_of(settings.Policy(path="x", attention=attention, precision=precision), device)


def test_the_better_version_that_runs_here(node):
    node((8, 0), flash_attn=package())
    assert chosen() == chosen("flash_attention_2") == "flash_attention_2"
    node((9, 0), flash_attn=package(), flash_attn_interface=package())
    assert chosen() == "flash_attention_3" and chosen("flash_attention_2") == "flash_attention_2"
    assert chosen("sdpa") == "sdpa" and chosen("eager") == "eager"
    node((10, 0), flash_attn=package(), flash_attn_interface=package())
    assert chosen() == "flash_attention_2"


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    "capability, modules, precision, device, says",
    [
        ((9, 0), {}, "auto", CPU, "there is no GPU"),
        ((9, 0), {"a": package()}, "float32", GPU, "it does not compute in policy.precision=float32"),
        ((7, 0), {"a": package()}, "auto", GPU, "this GPU has capability 7.0"),
        ((9, 0), {}, "auto", GPU, "is not installed"),
        ((9, 0), {"a": Broken("flash")}, "auto", GPU, r"does not load \(undefined symbol.*build it against this torch"),
        ((9, 0), {"a": types.SimpleNamespace()}, "auto", GPU, "does not load"),  # flash-attn-4 has the same module name
    ],
)
def test_where_it_cannot_run(node, monkeypatch, caplog, name, capability, modules, precision, device, says):
    node(capability, **{module: found for found in modules.values() for module in flash.MODULE_OF.values()})
    with pytest.raises(RunError, match=f"policy.attention={name}: .*{says}.*: use policy.attention=auto"):
        chosen(name, precision, device)
    monkeypatch.setattr(log, "propagate", True)
    with caplog.at_level("INFO", "hpc_saidpo"):
        assert chosen("auto", precision, device) == chosen("auto", precision, device) == "sdpa"
    assert len(caplog.records) == (device == GPU)  # said once; on a CPU nobody expects it


def test_transformers_must_know_it_too(node, monkeypatch):
    node((8, 0), flash_attn=package())
    monkeypatch.setattr(flash, "is_flash_attn_2_available", lambda: False)  # else it would ask the Hub for a kernel
    with pytest.raises(RunError, match="transformers does not accept this flash_attn"):
        chosen("flash_attention_2")
    assert chosen() == "sdpa"


@pytest.mark.parametrize("name", BOTH)
def test_no_request_is_sent_to_the_hub(name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a request was sent to the Hub")

    for place in ("transformers.integrations.hub_kernels", "kernels"):
        with contextlib.suppress(ImportError):
            for function in ("get_kernel", "load_and_register_attn_kernel", "lazy_load_kernel"):
                monkeypatch.setattr(f"{place}.{function}", refuse, raising=False)
    with pytest.raises(RunError, match="there is no GPU"):
        model.Policy.load(MICRO, settings.Policy(path="x", attention=name), CPU)
