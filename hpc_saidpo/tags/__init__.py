"""Knowledge points of each question (README, method step 0.1): those of the pool, or a language model's."""

from .column import of
from .local import Local
from .settings import Config
from .tagging import Exported, Tagging

__all__ = ["Config", "Exported", "Local", "Tagging", "of"]
