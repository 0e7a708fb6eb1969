"""The knowledge points of a run's pool; replies are shared between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import settings
from ..errors import Ended, RunError
from ..policy.cache import load_policy
from ..policy.locate import fingerprint
from ..policy.stage import model_folder
from ..progress import log
from ..records import Question, joined
from ..store.run import RunDir
from . import batch
from .asking import Task
from .column import read_points
from .endpoint import Server, identify
from .replies import Answers, Inquiry, Tagger, hash_of
from .tagging import Tagging

if TYPE_CHECKING:
    from ..policy.model import Policy


def tag(
    questions: Sequence[Question],
    config: settings.Tags,
    policy: settings.Policy,
    engine: settings.Engine,
    run: RunDir,
    accept_changes: bool = False,
) -> list[tuple[str, ...]]:
    """Return the knowledge points of each question, by tags.mode. Collective.

    With tags.mode=column the other ranks than root may receive an empty list: only root needs so much memory.

    Args:
        policy: attention and precision of a tagger that runs in this process (tags.mode=model).
        engine: the rollout engine of such a tagger.
        accept_changes: accept other knowledge points than at the run's start (run.accept_changes).

    Raises:
        RunError: the pool has none for a question, the tagger cannot answer, or the run began with other points.
        Ended: requests were written to a file (tags.mode=export).
    """
    world = run.world
    if config.mode == "column":
        return world.kept_on_root(lambda: read_points(questions)) or []
    local = None
    if config.mode == "model":
        from .local import Local  # imports transformers: a finished stage needs none of it

        folder = model_folder(config.model, run)
        weights = world.on_root(lambda: fingerprint(folder, run.sha256s))

        def load() -> Policy:
            try:
                return load_policy(folder, replace(policy, path=folder), world.device)
            except RunError as error:
                raise RunError(f"tags.model={config.model}: {error}") from error

        local = Local(weights, load, engine, config.max_new_tokens)
    points = find_points(questions, config, run, local)
    digest = world.on_root(lambda: _digest(points))
    remedy = (
        "the replies were requested again, or others were imported: start another run with run.name=..., or go on with "
        "run.accept_changes=true"
    )
    run.require_same("tags", {"model": config.model, "points": digest}, remedy, accept_changes)
    return points


def find_points(
    questions: Sequence[Question], config: settings.Tags, run: RunDir, local: Tagger | None = None
) -> list[tuple[str, ...]]:
    """Return the knowledge points of each question, by a tagger. Collective; raises as `Tagging.find_points`.

    Args:
        local: the model in this process, for tags.mode=model.
    """
    return Tagging(config, run.world, _Collector(config, run, local).collect).find_points(questions)


@dataclass(frozen=True)
class _Collector:
    """Replies by the tagger of tags.mode, stored beside the run."""

    config: settings.Tags
    run: RunDir
    local: Tagger | None

    def collect(self, task: Task, texts: Sequence[str], ids: Iterable[tuple[str, str]]) -> Answers:
        """Return the replies about each text: stored ones, then those of requests or of an import. Collective.

        Args:
            ids: (an id that files of answers may use, text) of each text.

        Raises:
            RunError: the tagger cannot answer; or a file of answers is wrong.
            Ended: requests were written to a file.
        """
        config, run = self.config, self.run
        tagger = Server(config, run.world.size) if config.mode == "endpoint" else self.local
        identity = tagger.identity if tagger else identify(config)
        inquiry = Inquiry(task, identity, texts, run.shared_before, run.world)
        if tagger:
            chunk = config.chunk_questions
            key = f"{chunk} {inquiry.digest}"
            return run.shared(
                inquiry.name, key, lambda stage: inquiry.request(stage, tagger, chunk), inquiry.load, resumes=True
            )
        answers: dict[str, str] = {}  # on root only
        source = "nothing"
        if config.mode == "import":
            source = run.world.on_root(lambda: _import(config, ids, answers))
        elif n_written := run.world.on_root(lambda: _export(config, task, inquiry)):
            raise Ended(
                f"the export of {n_written:,} requests to {config.files[0]}: get them answered, then start again with "
                "tags.mode=import tags.file=ANSWERS"
            )
        key = f"{source} {inquiry.digest}"
        return run.shared(inquiry.name, key, lambda stage: inquiry.add(stage, answers), inquiry.load)


def _import(config: settings.Tags, ids: Iterable[tuple[str, str]], answers: dict[str, str]) -> str:
    """Fill `answers` with the replies of tags.file by hash of the text; return the hash of its content."""
    replies, n_failed = batch.read(config.files, config.reply_mib)
    hash_by_id = {id: hash_of(text) for id, text in ids}
    answers.update((hash_by_id.get(id, id), reply) for id, reply in replies.items())
    log.info("tags.file: %d answers, %d requests failed", len(replies), n_failed)
    return hashlib.sha256(repr(sorted(answers.items())).encode("utf-8", "surrogatepass")).hexdigest()


def _export(config: settings.Tags, task: Task, inquiry: Inquiry) -> int:
    """Write the requests without a reply to tags.file; return their number."""
    requests = inquiry.list_unanswered()
    if requests:
        batch.write(config.files[0], task, requests, config)
    return len(requests)


def _digest(points: Sequence[Sequence[str]]) -> str:
    return hashlib.sha256("\n".join(map(joined, points)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
