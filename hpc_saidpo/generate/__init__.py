"""The rollout engine: prompts -> K responses each, by one of several engines behind one function."""

from .engine import Config, generate
from .sampling import Response, Sampling, choose
from .shared import common_prefix
from .vllm import free

__all__ = ["Config", "Response", "Sampling", "choose", "common_prefix", "free", "generate"]
