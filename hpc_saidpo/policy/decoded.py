"""The logits of chosen places, computed by the forward pass of the model's own class."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

Outputs = dict[str, torch.Tensor]  # of a decoder at some places, by name: [N, ...] each; and the token ids [N] there
IDS = "input_ids"


def decoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The decoder of a causal language model: the model without its head.

    A few classes name another part than they have (Llama 4): then it is the only model inside.
    """
    base = model.base_model
    if base is not model:
        return cast(PreTrainedModel, base)
    inner = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return inner[0] if len(inner) == 1 else model


def at_places(ids_RT: torch.Tensor, outputs: Any, place_N: torch.Tensor) -> Outputs:
    """The decoder's outputs at some places of its rows, and the token ids there.

    Args:
        outputs: of the decoder (`decoder_of`).
        place_N: indices into the flattened rows, r · T + t.

    Returns:
        Every output that has a value for each place, as [N, ...]: the last hidden state, and what else the forward
        pass of the model's class may read. Indexing sums the gradients of a place that occurs twice in a fixed order;
        `index_select` does not.
    """
    assert outputs.last_hidden_state.shape[:2] == ids_RT.shape
    by_place = {n: x for n, x in outputs.items() if isinstance(x, torch.Tensor) and x.shape[:2] == ids_RT.shape}
    return {name: x.flatten(0, 1)[place_N] for name, x in {**by_place, IDS: ids_RT}.items()}


def logits_of(model: PreTrainedModel, kind: type, outputs: Outputs) -> torch.Tensor:
    """The logits [N, V], float32, of the decoder's outputs at N places.

    The forward pass of the model's class computes them, with everything that the architecture adds between its decoder
    and its logits: layers, a bias, scaled or soft-capped logits. No attribute of the model is changed.

    Args:
        kind: class of the decoder's outputs.
    """
    decoded = {name: x[None] for name, x in outputs.items() if name != IDS}
    stand_in = _Model(model, _Decoder(decoder_of(model), kind(**decoded)))
    return type(model).forward(cast(PreTrainedModel, stand_in), outputs[IDS][None]).logits[0].float()


class _Decoder:
    """A stand-in for a decoder. It returns fixed outputs, and so do the decoders inside it (OPT's `model.decoder`)."""

    def __init__(self, decoder: PreTrainedModel, outputs: ModelOutput):
        self._decoder, self._outputs = decoder, outputs

    def __call__(self, *_: object, **__: object) -> ModelOutput:
        return self._outputs

    def __getattr__(self, name: str) -> Any:
        return self.inside(getattr(self._decoder, name))

    def inside(self, value: Any) -> Any:
        """A part of the model; one that is a model returns the fixed outputs, too."""
        return _Decoder(value, self._outputs) if isinstance(value, PreTrainedModel) else value


class _Model:
    """A stand-in for a causal language model: everything is the model's, except for its decoder."""

    def __init__(self, model: PreTrainedModel, decoder: _Decoder):
        self._model, self._decoder = model, decoder

    def __getattr__(self, name: str) -> Any:
        return self._decoder.inside(getattr(self._model, name))
