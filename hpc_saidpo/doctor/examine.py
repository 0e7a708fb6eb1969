"""Every preflight check in one call."""

from __future__ import annotations

from ..parallel.world import World
from ..settings.whole import Settings
from . import disk, foresight, gpu, inputs, memory, plan, ranks, room, software, tryout
from .finding import Finding, judge


def examine(world: World, config: Settings, n_runs: int = 1) -> list[Finding]:
    """Make every check, in under a minute. On GPUs this includes the self-check of each GPU path. Collective.

    Args:
        n_runs: number of such runs for which there must be room on disk.
    """
    model = _model(config, world)
    is_read = isinstance(model, memory.Model)
    known = room.Weights(model.n_parameters, "F32") if isinstance(model, memory.Model) else None
    needed = world.on_root(lambda: room.needed([config] * n_runs, known))
    return [
        *ranks.check(world, config.run.device),
        *software.check(world, config),
        *world.on_root(lambda: foresight.foresee(config)),
        *disk.check(world, config, needed, n_runs),
        *(plan.check(world, config, model) if is_read else [model]),
        *(tryout.check(world, config) if is_read else []),
        *gpu.check(world, config.rollouts.generate.compile),
    ]


def _model(config: Settings, world: World) -> memory.Model | Finding:
    """The sizes of policy.path, or a finding when it cannot be read."""

    def lacks_inputs() -> bool:
        return any(i.problem for i in inputs.list_inputs(config) if i.key in ("policy.path", "pool.path"))

    if world.on_root(lacks_inputs):
        return judge("memory", "not estimated: an input is missing, see above")
    return memory.model_on_root(config, world)
