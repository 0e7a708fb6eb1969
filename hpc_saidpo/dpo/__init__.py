"""Direct preference optimization: the losses (pure), and one training round over the ranks (README, method step 7)."""

from .examples import Examples, key_of, reference_key, reference_logps, tokenise
from .loss import ipo_loss, log_ratio, loss_of, nll_loss, rewards, sigmoid_loss
from .schedule import batches, rate
from .settings import Config, Lora
from .train import train

__all__ = [
    "Config",
    "Examples",
    "Lora",
    "batches",
    "ipo_loss",
    "key_of",
    "log_ratio",
    "loss_of",
    "nll_loss",
    "rate",
    "reference_key",
    "reference_logps",
    "rewards",
    "sigmoid_loss",
    "tokenise",
    "train",
]
