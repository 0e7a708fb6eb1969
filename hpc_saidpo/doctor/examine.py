"""Every preflight check in one call."""

from __future__ import annotations

from ..parallel.world import World
from ..settings.whole import Settings
from . import disk, gpu, inputs, memory, plan, ranks, software
from .finding import Finding, judge


def examine(world: World, config: Settings) -> list[Finding]:
    """Everything, in under a minute; on GPUs the self-check of each GPU path too."""
    model = _model(config, world)
    return [
        *ranks.check(world),
        *software.check(world, config),
        *disk.check(world, config, plan.disk_bytes(model, config) if isinstance(model, memory.Model) else None),
        *(plan.check(world, config, model) if isinstance(model, memory.Model) else [model]),
        *gpu.check(world, config.rollouts.generate.compile),
    ]


def _model(config: Settings, world: World) -> memory.Model | Finding:
    def look():
        if any(i.problem for i in inputs.of(config) if i.key in ("policy.path", "pool.path")):
            return judge("memory", "not estimated: see what is missing")
        try:
            return memory.model_at(config.policy.path)
        except (OSError, ValueError, KeyError) as error:
            return judge("memory", "not estimated", failure=f"policy.path={config.policy.path}: {error}")

    return world.on_root(look)
