"""Knowledge points -> vectors, in chunks that depend on the texts only: the same on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import RunError, input_errors, memory_errors
from ..policy.locate import Hashes, hash_of, locate, sha256s
from ..progress import say_once
from ..table import Columns, column
from .modules import check_modules

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SMALLEST_CHUNK, LARGEST_CHUNK = 64, 4096  # texts
FIRST = 3  # texts that a message names
CHUNKS = 64  # between these sizes: several chunks for each of a few dozen ranks


@dataclass(frozen=True)
class Embedding(Columns):
    """L2-normalised sentence-transformers vectors of distinct texts."""

    text_U: list[str] = column(str, "what was embedded: knowledge points, joined", "UTF-8")
    vector_UD: np.ndarray = column(np.float32, "L2-normalised sentence embedding")


def texts(tags: Sequence[Sequence[str]]) -> list[str]:
    """Return the text to embed for each question: its knowledge points, joined."""
    joined = {points: "; ".join(points) for points in set(map(tuple, tags))}  # a million questions have only thousands
    return [joined[tuple(points)] for points in tags]


def chunks(text_N: Iterable[str]) -> list[list[str]]:
    """Cut the distinct texts into chunks for the ranks: long texts first, similar lengths together."""
    distinct = sorted(set(text_N), key=lambda text: (-len(text), text))
    size = min(LARGEST_CHUNK, max(SMALLEST_CHUNK, math.ceil(len(distinct) / CHUNKS)))
    return [distinct[begin : begin + size] for begin in range(0, len(distinct), size)]


def weights_hash(encoder: str, hashes: Hashes = sha256s) -> str:
    """Return the hash of an encoder's weights, tokenizer and settings; it does not depend on the folder's place.

    Args:
        hashes: returns the SHA-256 of each file.

    Raises:
        RunError: no folder with weights there.
    """
    suffixes = (".safetensors", ".bin", ".json", ".txt", ".model")
    folder = Path(locate(encoder))
    paths = sorted(p for p in folder.rglob("*") if p.suffix in suffixes and p.is_file())
    if not paths:
        raise RunError(f"clusters.encoder={encoder}: no sentence encoder there: no folder with weights")
    return hash_of(paths, hashes)


def load(encoder: str, device: torch.device) -> SentenceTransformer:
    """Load a sentence-transformers model from a folder or the local Hub cache: float16 on a GPU, else float32.

    Raises:
        RunError: no sentence encoder there; or its folder names code that is never run.
    """
    from sentence_transformers import SentenceTransformer

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    problem = f"clusters.encoder={encoder}: no sentence encoder there"
    try:
        parts = check_modules(Path(locate(encoder)))
    except RunError as error:
        raise RunError(f"{problem}: {error}") from error
    if not parts:
        say_once(f"clusters.encoder={encoder} has no modules.json: a vector is the mean over the tokens of a text")
    with input_errors(problem, "copy the whole folder of a sentence-transformers model again"):
        return SentenceTransformer(
            locate(encoder),
            device=str(device),
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": dtype},
        )


def embed(texts: Sequence[str], model: SentenceTransformer, batch: int) -> Embedding:
    """Compute the vectors of texts, batched by length.

    Args:
        model: from `load`.
        batch: number of texts computed at once.

    Raises:
        RunError: the encoder cannot encode a text, or its vector is not finite; or memory does not suffice.
    """
    remedy = "clusters.encoder needs a complete sentence-transformers model: copy its folder again, or name another"
    with (
        memory_errors("while texts are embedded", f"lower clusters.batch (now {batch})"),
        input_errors(f"the encoder failed on texts such as {texts[0]!r}", remedy),
    ):
        vector_UD = model.encode(list(texts), batch_size=batch, show_progress_bar=False, convert_to_numpy=True)
    vector_UD = vector_UD.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(vector_UD).all(axis=1))
    if len(bad):
        named = ", ".join(repr(texts[i]) for i in bad[:FIRST])
        raise RunError(f"the encoder makes vectors that are not finite of {len(bad)} texts, such as {named}: {remedy}")
    # The length is computed in float32, whatever the precision of the model; a zero vector stays zero.
    vector_UD /= np.maximum(np.linalg.norm(vector_UD, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return Embedding(list(texts), vector_UD)
