"""Questions tagged by a chat server of `support.chat_server`, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Question
from hpc_saidpo.store.run import RunDir
from hpc_saidpo.tags.replies import Tagger
from hpc_saidpo.tags.stage import find_points

from .chat_server import ChatServer, completion

QUESTIONS = [Question(f"q{i}", f"What is {i} + 1?", str(i + 1), subject="sums" if i else "") for i in range(5)]
SUMS = ("sum", "whole number")


def tag(
    folder: Path,
    config: settings.Tags,
    questions: Sequence[Question] = QUESTIONS,
    world: World | None = None,
    local: Tagger | None = None,
) -> list[tuple[str, ...]]:
    """The knowledge points of questions, with replies stored in `folder`."""
    return find_points(questions, config, RunDir(folder / "runs/run", world or World(), {}, print), local)


def question_in(request: dict) -> str:
    """The question of a request, without the words around it."""
    return request["messages"][-1]["content"].partition("Problem: ")[2]


def answering(reply_to: Callable[[str], str] = lambda question: '["sums", "whole numbers"]') -> Callable[[dict], bytes]:
    """A server's answer by the question alone."""
    return lambda request: completion(reply_to(question_in(request)))


def questions_of(server: ChatServer) -> list[str]:
    """The questions of all requests that a server has received, in their order."""
    return [question_in(request) for _, _, request, _ in server.seen]
