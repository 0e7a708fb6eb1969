"""The settings of the group `dpo`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Positive, group

HEAD_TOKENS = 1024  # response tokens whose logits are in memory at once


@group
class Lora:
    """Low-rank adapters of a DPO round."""

    rank: Positive | None = None
    alpha: Annotated[float, Field(gt=0)] = 32.0
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"


@group
class Dpo:
    """One DPO round: the loss, the optimizer, the computation of a batch."""

    loss: Literal["sigmoid", "sigmoid_norm", "ipo"] = "sigmoid"
    beta: Annotated[float, Field(gt=0)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    nll: Annotated[float, Field(ge=0)] = 0.0
    lr: Annotated[float, Field(gt=0)] = 5e-7
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.1
    epochs: Positive = 1
    batch_pairs: Positive = 128
    micro_pairs: Positive = 4
    micro_tokens: Positive | None = None
    head_tokens: Positive = HEAD_TOKENS
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    lora: Lora = Field(default_factory=Lora)
    strategy: Literal["ddp", "fsdp", "single"] = "ddp"
    checkpointing: bool = False
    checkpoint_minutes: Annotated[float, Field(ge=0)] | None = 10.0

    def __post_init__(self):
        if self.loss == "ipo" and self.label_smoothing:
            raise ValueError(
                f"label_smoothing ({self.label_smoothing}) applies to the sigmoid losses only: with loss=ipo, set 0"
            )
        if self.strategy == "fsdp" and self.optimizer != "adamw":
            raise ValueError(f"optimizer={self.optimizer} cannot work on shards: with strategy=fsdp, set adamw")
