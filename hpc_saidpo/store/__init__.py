"""The store: the only package that names a path in a run, or opens one for writing."""

from .run import Config, RunDir, newest_policy
from .stage import Stage
from .tables import Damaged
from .texts import StoredText

__all__ = ["Config", "Damaged", "RunDir", "Stage", "StoredText", "newest_policy"]
