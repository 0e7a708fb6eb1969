"""Knowledge points as vectors: in chunks that depend on the texts alone, so that any number of ranks makes the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import RunError
from ..policy.locate import hash_of, locate
from ..table import Columns, column

SMALLEST_CHUNK, LARGEST_CHUNK = 64, 4096  # texts
CHUNKS = 64  # between the two: several for each of a few dozen ranks


@dataclass(frozen=True)
class Embedding(Columns):
    """L2-normalised sentence-transformers vectors of distinct texts."""

    text_U: list[str] = column(str, "what was embedded: knowledge points, joined", "UTF-8")
    vector_UD: np.ndarray = column(np.float32, "L2-normalised sentence embedding")


def texts(tags: Sequence[Sequence[str]]) -> list[str]:
    """What is embedded for each question: its knowledge points, joined."""
    known = {points: "; ".join(points) for points in set(map(tuple, tags))}  # of a million questions, thousands differ
    return [known[tuple(points)] for points in tags]


def chunks(text_N: Iterable[str]) -> list[list[str]]:
    """The distinct texts, each once, in the chunks that ranks claim: long ones first, like lengths together."""
    distinct = sorted(set(text_N), key=lambda text: (-len(text), text))
    size = min(LARGEST_CHUNK, max(SMALLEST_CHUNK, math.ceil(len(distinct) / CHUNKS)))
    return [distinct[begin : begin + size] for begin in range(0, len(distinct), size)]


def weights_hash(encoder: str) -> str:
    """What makes an encoder this encoder, wherever it lies: a hash of its weights, tokenizer and settings.

    Raises:
        RunError: there is no such folder.
    """
    kept = (".safetensors", ".bin", ".json", ".txt", ".model")
    folder = Path(locate(encoder))
    found = sorted(p for p in folder.rglob("*") if p.suffix in kept and p.is_file())
    if not found:
        raise RunError(f"clusters.encoder={encoder}: no sentence encoder there: no folder with weights")
    return hash_of(found)


def load(encoder: str, device: torch.device):
    """A sentence-transformers model from a folder or the local Hub cache: float16 on a GPU, float32 on the CPU.

    Raises:
        RunError: there is none.
    """
    from sentence_transformers import SentenceTransformer

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        return SentenceTransformer(
            locate(encoder), device=str(device), local_files_only=True, model_kwargs={"dtype": dtype}
        )
    except (OSError, ValueError) as error:
        raise RunError(f"clusters.encoder={encoder}: no sentence encoder there: {error}") from error


def embed(texts: Sequence[str], model, batch: int) -> Embedding:
    """Vectors of texts, batched by length.

    Args:
        model: what `load` gave.
        batch: texts computed at once.
    """
    vector_UD = model.encode(list(texts), batch_size=batch, show_progress_bar=False, convert_to_numpy=True)
    vector_UD = vector_UD.astype(np.float32)
    # The length in float32, whatever the model computes in; a vector of nothing stays nothing.
    vector_UD /= np.maximum(np.linalg.norm(vector_UD, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return Embedding(list(texts), vector_UD)
