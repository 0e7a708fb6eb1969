"""The parts of a sentence encoder's folder, and a check of the classes that they name, before any is imported.

Versions of sentence-transformers differ in what they import and run of a folder. Only classes of its own are accepted
here whose folders name no further class.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..errors import RunError, shown, words_of
from ..names import below
from ..reading import parse_json, read_text

LIST = "modules.json"
CLASSES = ("Transformer", "Pooling", "Normalize", "Dense", "LayerNorm", "Dropout", "StaticEmbedding",
           "WeightedLayerPooling")  # fmt: skip
_TYPE = re.compile(rf"sentence_transformers(?:\.[a-z_0-9]+)*\.({'|'.join(CLASSES)})")
_ACTIVATION = re.compile(r"torch\.nn\.(?:modules\.[a-z_0-9]+\.)?[A-Z]\w*")


def check_modules(folder: Path) -> list[Path]:
    """Return the folders of an encoder's parts, the first one with the weights; [] if it does not list them.

    Raises:
        RunError: the list is damaged, leads out of the folder, or names a class that is not accepted.
    """
    path = folder / LIST
    if not path.exists():
        return []
    try:
        modules = parse_json(read_text(path))
        if not isinstance(modules, list) or not modules:
            raise ValueError("it lists no part")
        return [_check(folder, module) for module in modules]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{shown(path)} is damaged, or names code that is never run ({words_of(error)}): copy the whole folder "
            "again, or name another encoder"
        ) from error


def _check(folder: Path, module: dict[str, Any]) -> Path:
    """Return the folder of one part."""
    kind = _TYPE.fullmatch(module["type"])
    if not kind:
        raise ValueError(f"{module['type']!r:.200} is none of sentence_transformers' {', '.join(CLASSES)}")
    place = below(folder, module["path"]) if module["path"] else folder
    if kind[1] == "Dense" and (place / "config.json").exists():
        activation = parse_json(read_text(place / "config.json")).get("activation_function")
        if activation is not None and not _ACTIVATION.fullmatch(activation):
            raise ValueError(f"{activation!r:.200} is no activation function of torch.nn")
    return place
