"""What a process keeps in memory from stage to stage: one policy, and its grader."""

from __future__ import annotations

import functools
import gc

from . import policy
from .generate import free
from .grader import Grader, Limits


@functools.lru_cache(maxsize=1)
def load_policy(path: str, config: policy.Config, device) -> policy.Policy:
    """The policy at a path; the last one stays in memory."""
    forget_policies()
    return policy.Policy.load(path, config, device)


@functools.lru_cache(maxsize=1)
def grader_of(limits: Limits) -> Grader:
    """This process's grader: its verdicts are kept from stage to stage, and it ends with the process."""
    return Grader(limits)


def forget_policies() -> None:
    """Free the policy in memory: its weights have changed, or another one is wanted."""
    load_policy.cache_clear()
    free()
    gc.collect()
