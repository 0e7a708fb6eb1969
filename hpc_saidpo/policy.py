"""A causal LM and its tokenizer: load, save, encode."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from huggingface_hub import snapshot_download, split_torch_state_dict_into_shards
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HFValidationError
from pydantic import Field
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from . import flash
from .parallel import World, shards
from .progress import say_once
from .records import RunError, settings

FILE_BYTES = 5_000_000_000  # of a file of weights
PACKAGE = "pkg://"  # pkg://some_package/inner/path: a file that an installed Python package ships


@settings()
class Config:
    path: Annotated[str, Field(min_length=1)]
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def locate(path: str, kind: Literal["model", "dataset"] = "model") -> str:
    """A path as a file or folder: pkg:// is looked up in the installed package, a Hub name in the local cache.

    Raises:
        RunError: the package is not installed, or holds no such file.
    """
    if not path.startswith(PACKAGE):
        return path if Path(path).exists() else _in_hub_cache(path, kind)
    package, _, inner = path.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise RunError(f"{path}: the Python package {package!r} is not installed (see README, extras `demo`)")
    found = Path(spec.submodule_search_locations[0]) / inner
    if not found.exists():
        raise RunError(f"{path}: package {package!r} holds no {inner!r}")
    return str(found)


def hub_cache() -> str:
    """Where models and datasets named as on the Hub are looked for."""
    return HF_HUB_CACHE


def _in_hub_cache(name: str, kind: str) -> str:
    try:
        return snapshot_download(name, repo_type=kind, local_files_only=True)
    except (HFValidationError, OSError):
        return name  # loading it will say what is wrong


def fingerprint(folder: str) -> str:
    """What makes a policy this policy: a hash of its configuration and weights files, 16 hex digits.

    Raises:
        RunError: there is no such folder.
    """
    try:
        content = sorted(Path(folder).iterdir())
        found = [p for p in content if p.suffix in (".safetensors", ".bin") or p.name == "config.json"]
        return hash_of(found)
    except OSError as error:
        raise RunError(f"policy.path={folder}: no model could be loaded from there: {error}") from error


def hash_of(files: Iterable[Path]) -> str:
    """A hash of files' names and contents, 16 hex digits; files that have not changed are read once."""
    return _fingerprint(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@functools.lru_cache
def _fingerprint(files: tuple[tuple[Path, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for path, *_ in files:
        with open(path, "rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()[:16]


def convert_gguf(gguf: str, folder: Path) -> None:
    """Save a GGUF file as a Hugging Face folder: float32 weights, tokenizer, chat template.

    Raises:
        RunError: transformers cannot read the file.
    """
    where, name = str(Path(gguf).parent), Path(gguf).name
    try:
        # Its own progress bar heeds no switch, and would tear our log.
        with contextlib.redirect_stderr(io.StringIO()):
            model = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    except (OSError, ValueError, ImportError) as error:
        raise RunError(f"policy.path={gguf}: not readable as GGUF ({error})") from error
    # The weights are plain float32 now; transformers still marks the model as quantized and would refuse to save it.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@dataclass
class Policy:
    """A causal LM with its tokenizer, on one device. Weights are float32; `precision` is that of the computation."""

    model: nn.Module
    tokenizer: object
    device: torch.device
    precision: torch.dtype
    path: str

    @classmethod
    def load(cls, path: str, config: Config, device: torch.device) -> Policy:
        """Load a Hugging Face folder (or a name in the local Hub cache).

        Raises:
            RunError: no model or no tokenizer there; names the path and what is missing.
        """
        precision = precision_of(config, device)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                path, dtype=torch.float32, attn_implementation=attention_of(config, device)
            )
        except (OSError, ValueError) as error:
            raise RunError(f"policy.path={path}: no model could be loaded from there: {error}") from error
        policy = cls(model.to(device), _load_tokenizer(path), device, precision, path)
        model.config.use_cache = True
        return policy

    def save(self, folder: Path, world: World | None = None, file_bytes: int = FILE_BYTES) -> None:
        """Save in Hugging Face layout: AutoModelForCausalLM.from_pretrained(folder) loads it.

        Args:
            world: collective: root writes, also weights of which each rank has a shard. None: this rank writes.
            file_bytes: the size of a file of weights; what one of them holds, at most, root has twice in memory.
        """
        is_root = world is None or world.is_root
        weights = self.model.state_dict(keep_vars=True)
        if any(map(shards.is_spread, weights.values())):
            _save_spread(self.model, weights, folder, is_root, file_bytes)
        elif is_root:
            self.model.save_pretrained(folder, max_shard_size=file_bytes)
        if is_root:
            self.tokenizer.save_pretrained(folder)

    @property
    def eos_ids(self) -> set[int]:
        """Every token that ends a response."""
        ids = getattr(self.model.generation_config, "eos_token_id", None)
        ids = ids if isinstance(ids, list) else [ids]
        return {i for i in [*ids, self.tokenizer.eos_token_id] if i is not None}

    def autocast(self):
        """The precision of the computation, as a context."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def chat_template(self, messages: list[dict]) -> str:
        """Messages as one string with the assistant's turn opened.

        Raises:
            RunError: the tokenizer has no chat template.
        """
        if not self.tokenizer.chat_template:
            raise RunError(
                f"the tokenizer of {self.path} has no chat template: set rollouts/prompt=plain (or another prompt with "
                "chat: false)"
            )
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def encode_prompt(self, prompt: str, chat: bool) -> list[int]:
        """Token ids; a chat template already holds its special tokens, plain text gets the tokenizer's own."""
        return self.tokenizer(prompt, add_special_tokens=not chat)["input_ids"]

    def encode_response(self, text: str, finished: bool, stop: Sequence[str]) -> list[int]:
        """Token ids of a response to train on; one that ended by itself carries what ended it."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not finished:
            return ids
        end = self.tokenizer(stop[0], add_special_tokens=False)["input_ids"] if stop else [self.tokenizer.eos_token_id]
        return ids + end


def is_stored_as_computed(model: nn.Module) -> bool:
    """Whether its weights have the same names in files as in memory: transformers puts those of experts together."""
    weights = {name: torch.empty_like(w, device="meta") for name, w in model.state_dict().items()}
    return revert_weight_conversion(model, weights).keys() == weights.keys()


def _save_spread(model, weights: dict[str, torch.Tensor], folder: Path, is_root: bool, file_bytes: int) -> None:
    """Like save_pretrained, for weights spread over the ranks: root holds those of one file at a time. Collective."""
    names = {id(tensor): name for name, tensor in reversed(list(weights.items()))}  # tied weights: by the first one's
    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(weights[name].shape, dtype=weights[name].dtype, device="meta") for name in names.values()},
        max_shard_size=file_bytes,
    )
    for file, held in plan.filename_to_tensors.items():
        tensors = {}
        for name in held:
            tensor = shards.whole(weights[name].detach())
            if is_root:
                tensors[name] = tensor.to("cpu").contiguous()
        if is_root:
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if not is_root:
        return
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def attends_to_all(config) -> bool:
    """Whether every layer of the model attends to the whole row, rather than to a sliding window of it."""
    layers = getattr(config, "layer_types", None) or ["full_attention"]
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return set(layers) == {"full_attention"} and not sliding


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids [B, T] and attention mask [B, T], padded on the left."""
    width = max(map(len, rows))
    ids_BT = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask_BT = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids_BT[i, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask_BT[i, width - len(row) :] = 1
    return ids_BT.to(device), mask_BT.to(device)


def positions(mask_BT: torch.Tensor) -> torch.Tensor:
    """Position ids of left-padded rows: the first real token is at 0."""
    return (mask_BT.cumsum(-1) - 1).clamp(min=0)


def _load_tokenizer(path):
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"policy.path={path}: the model is there but its tokenizer is not loadable ({error}): save both into the "
            "folder, tokenizer.save_pretrained(folder)"
        ) from error
    if len(tokenizer) == 0 or tokenizer.eos_token_id is None:
        raise RunError(f"policy.path={path}: its tokenizer is empty or has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def precision_of(config: Config, device: torch.device) -> torch.dtype:
    """The precision of the computation."""
    name = config.precision
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return getattr(torch, name)


def attention_of(config: Config, device: torch.device) -> str:
    """The attention implementation, by transformers' name; auto falls back to sdpa, and says why once.

    Raises:
        RunError: flash attention is asked for where it cannot run.
    """
    if config.attention not in ("auto", *flash.MODULE_OF):
        return config.attention
    why_not = {}
    for name in flash.MODULE_OF if config.attention == "auto" else [config.attention]:
        why_not[name] = flash.obstacle(name, device, precision_of(config, device))
        if not why_not[name]:
            return name
    if config.attention != "auto":
        raise RunError(f"policy.attention={config.attention}: {why_not[config.attention]}: use policy.attention=auto")
    if device.type == "cuda":
        say_once("attention: sdpa (" + "; ".join(f"no {name}: {why}" for name, why in why_not.items()) + ")")
    return "sdpa"


def is_gguf(path: str) -> bool:
    """Whether a located path is a GGUF file, which `convert_gguf` must turn into a folder first."""
    return path.endswith(".gguf")


def longest(policy: Policy) -> float:
    """Positions that the model was made for."""
    return getattr(policy.model.config, "max_position_embeddings", None) or math.inf


def check_length(policy: Policy, n_tokens: int) -> None:
    """Refuse prompts and responses longer than the model was made for.

    Raises:
        RunError: n_tokens exceeds the model's max_position_embeddings.
    """
    limit = longest(policy)
    if n_tokens > limit:
        raise RunError(
            f"the longest prompt and rollouts.max_new_tokens need {n_tokens} positions, but the model at {policy.path} "
            f"has {limit}: lower rollouts.max_new_tokens or rollouts.prompt.shots"
        )
