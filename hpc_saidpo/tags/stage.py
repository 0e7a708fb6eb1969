"""Knowledge points of the pool as a run needs them."""

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
from .column import of
from .tagging import Tagging


def tag(
    questions: Sequence[Question],
    config: settings.Tags,
    policy: settings.Policy,
    engine: settings.Engine,
    run: RunDir,
    accept_changes: bool = False,
) -> list[tuple[str, ...]]:
    """The knowledge points of each question, as `config` says; a tagger's replies are shared between runs. Collective.

    Args:
        policy: attention and precision of a tagger that runs in this process (tags.mode=model).
        engine: the rollout engine that such a tagger decodes with.
        accept_changes: accept other knowledge points than the run began with.

    Raises:
        RunError: a question has none in the pool, the tagger cannot answer, or the run was made with other answers.
        Ended: requests were written to a file (tags.mode=export).
    """
    world = run.world
    if config.mode == "column":
        return of(questions)
    local = None
    if config.mode == "model":
        from .local import Local  # imports transformers: a finished stage needs none of it

        folder = model_folder(config.model, run)
        weights = world.on_root(lambda: fingerprint(folder))
        load = functools.partial(load_policy, folder, replace(policy, path=folder), world.device)
        local = Local(weights, load, engine, config.max_new_tokens)
    points = Tagging(config, run, local).of(questions)
    digest = world.on_root(lambda: _digest(points))
    remedy = (
        "its replies were made again, or other ones imported: start another run with run.name=..., or go on with "
        "run.accept_changes=true"
    )
    run.require_same("tags", {"model": config.model, "points": digest}, remedy, accept_changes)
    return points


def _digest(points: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256("\n".join(map(joined, points)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
