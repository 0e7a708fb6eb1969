"""The policy that this process keeps in memory between stages."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import imports, settings

if TYPE_CHECKING:
    import torch

    from .model import Policy

_releases: list[Callable[[], None]] = []  # each frees further memory that holds a policy


@functools.lru_cache(maxsize=1)
def load_policy(path: str, config: settings.Policy, device: torch.device) -> Policy:
    """The policy at a path. One policy stays in memory: the last one that was loaded."""
    forget_policies()
    with imports.of_large_libraries():
        from .model import Policy  # imports transformers: a finished stage needs none of it

        return Policy.load(path, config, device)


@functools.lru_cache(maxsize=1)
def load_without_weights(path: str) -> Policy:
    """The policy at a path, without weights: its configuration and tokenizer, for checks before any work."""
    from .model import Policy

    return Policy.without_weights(path)


def forget_policies() -> None:
    """Free the policy in memory, because its weights have changed or another policy is needed."""
    load_policy.cache_clear()
    release_engines()


def release_engines() -> None:
    """Free the memory of rollout engines, and what torch keeps for later: another process may need it."""
    for release in _releases:
        release()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def when_released(release: Callable[[], None]) -> Callable[[], None]:
    """Call `release` in every `release_engines`. A decorator."""
    _releases.append(release)
    return release
