"""The settings of the group `policy`."""

from __future__ import annotations

from typing import Literal

from .base import Name, group


@group
class Policy:
    """The policy that the first iteration starts from, and the precision of its computation and of saved weights."""

    path: Name
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    save_precision: Literal["auto", "float32", "bfloat16"] = "auto"
