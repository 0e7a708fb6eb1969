"""Check before the first rollout that a policy can be trained as the settings of `dpo` say."""

from __future__ import annotations

from transformers import PreTrainedModel

from .. import settings
from ..errors import RunError, shown
from ..policy.save import is_stored_as_computed
from .adapters import inject
from .optimizer import import_bitsandbytes


def check_trainable(model: PreTrainedModel, path: str, config: settings.Dpo) -> None:
    """Check everything that a DPO round would refuse after its rollouts: adapters, optimizer, strategy, checkpointing.

    Args:
        model: a model that is not used any more; its weights may be missing (device meta).
        path: place of the model, for messages.

    Raises:
        RunError: the model cannot be trained like this; the message names the setting to change.
    """
    for part in (model.config, model.config.get_text_config()):
        if quantised := getattr(part, "quantization_config", None):
            named = quantised if isinstance(quantised, dict) else quantised.to_dict()
            method = named.get("quant_method", "by an unnamed method")
            raise RunError(
                f"policy.path={shown(path)}: its weights are quantised ({method}), which cannot be trained: name the "
                "model that they were made from, or save it with plain weights (transformers: model.dequantize(), "
                "then save_pretrained)"
            )
    check_strategy(model, path, config)
    if config.checkpointing and not model.supports_gradient_checkpointing:
        raise RunError(
            f"dpo.checkpointing=true: {shown(path)} is a {model.config.model_type} model, for which transformers "
            "cannot recompute activations: use dpo.checkpointing=false"
        )
    if config.optimizer != "adamw":
        import_bitsandbytes(config.optimizer)
    inject(model, config.lora, 0, 0)


def check_strategy(model: PreTrainedModel, path: str, config: settings.Dpo) -> None:
    """Check that dpo.strategy can save the model.

    Raises:
        RunError: dpo.strategy=fsdp, but the weights have other names in memory than in the files.
    """
    if config.strategy == "fsdp" and not is_stored_as_computed(model):
        raise RunError(
            f"dpo.strategy=fsdp: {shown(path)} is a {model.config.model_type} model, whose weights have other names "
            "in memory than in its files: use dpo.strategy=ddp"
        )
