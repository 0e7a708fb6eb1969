"""A preflight: what this job, with this configuration, would meet on these nodes. Every check is collective."""

from __future__ import annotations

from .. import inputs, memory
from ..parallel import World
from . import disk, gpu, plan, ranks, software
from .finding import FAILURE, OK, WARNING, Finding, judge, plain, table

__all__ = ["FAILURE", "OK", "WARNING", "Finding", "examine", "plain", "table"]


def examine(world: World, config) -> list[Finding]:
    """Everything, in under a minute; on GPUs the self-check of each GPU path too."""
    model = _model(config, world)
    return [
        *ranks.check(world),
        *software.check(world, config),
        *disk.check(world, config, plan.disk_bytes(model, config) if isinstance(model, memory.Model) else None),
        *(plan.check(world, config, model) if isinstance(model, memory.Model) else [model]),
        *gpu.check(world, config.rollouts.generate.compile),
    ]


def _model(config, world) -> memory.Model | Finding:
    def look():
        if any(i.problem for i in inputs.of(config) if i.key in ("policy.path", "pool.path")):
            return judge("memory", "not estimated: see what is missing")
        try:
            return memory.model_at(config.policy.path)
        except (OSError, ValueError, KeyError) as error:
            return judge("memory", "not estimated", failure=f"policy.path={config.policy.path}: {error}")

    return world.on_root(look)
