"""The knowledge points of a run's pool."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from .. import settings
from ..policy.cache import load_policy
from ..policy.locate import fingerprint
from ..policy.stage import model_folder
from ..records import Question, joined
from ..store.run import RunDir
from .column import read_points
from .local import Local
from .tagging import Tagging


def tag(
    questions: Sequence[Question],
    config: settings.Tags,
    policy: settings.Policy,
    engine: settings.Engine,
    run: RunDir,
    accept_changes: bool = False,
) -> list[tuple[str, ...]]:
    """Return the knowledge points of each question, by tags.mode; replies are shared between runs. Collective.

    Args:
        policy: attention and precision of a tagger that runs in this process (tags.mode=model).
        engine: the rollout engine that such a tagger decodes with.
        accept_changes: accept other knowledge points than at the run's start (run.accept_changes).

    Raises:
        RunError: the pool has none for a question, the tagger cannot answer, or the run began with other points.
        Ended: requests were written to a file (tags.mode=export).
    """
    world = run.world
    if config.mode == "column":
        return read_points(questions)
    local = None
    if config.mode == "model":
        folder = model_folder(config.model, run)
        weights = world.on_root(lambda: fingerprint(folder))
        load = functools.partial(load_policy, folder, replace(policy, path=folder), world.device)
        local = Local(weights, load, engine, config.max_new_tokens)
    points = Tagging(config, run, local).find_points(questions)
    digest = world.on_root(lambda: _digest(points))
    remedy = (
        "the replies were requested again, or others were imported: start another run with run.name=..., or continue "
        "with run.accept_changes=true"
    )
    run.require_same("tags", {"model": config.model, "points": digest}, remedy, accept_changes)
    return points


def _digest(points: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256("\n".join(map(joined, points)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
