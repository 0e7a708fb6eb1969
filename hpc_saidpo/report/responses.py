"""The model's own words: responses of a run, each with its question, gold answer, extracted answer and verdict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError, shown
from ..grader.verifiers import VERIFIERS
from ..records import CORRECT, UNGRADABLE, VERDICTS, WRONG, Draw, Prompts, Question, Questions, Rollouts
from ..sampler.evidence import QuestionEvidence
from ..store.layout import folder_of
from ..store.stage import Stage, stages_of
from ..store.tables import Damaged

ABOUT = ("question_text", "gold", "extracted")  # keys of `about`


@dataclass(frozen=True)
class Choice:
    """The responses that a reader wants to see; None: any.

    Attributes:
        verdict: CORRECT, WRONG or UNGRADABLE.
        cut: only responses that were cut at rollouts.max_new_tokens.
        cluster: cluster of the question.
        question: id of the question.
    """

    verdict: int | None = None
    cut: bool = False
    cluster: int | None = None
    question: str | None = None

    def describe(self) -> str:
        """Return the choice as a part of a sentence."""
        words = {CORRECT: "right", WRONG: "wrong", UNGRADABLE: "ungradable", None: ""}
        parts = [words[self.verdict], "cut" * self.cut, "responses"]
        parts += [f"of cluster {self.cluster}"] if self.cluster is not None else []
        parts += [f"to {shown(self.question, 80)}"] if self.question is not None else []
        return " ".join(filter(None, parts))


@dataclass(frozen=True)
class Responses:
    """The graded rollouts of one stage with their questions.

    Attributes:
        stage: their stage; it may be in progress, then they are the rollouts so far, also of rounds.
        rollouts: sorted by question and sample. Texts stay on disk until they are used.
    """

    stage: Stage
    rollouts: Rollouts

    @classmethod
    def read(cls, stage: Stage) -> Responses:
        """Read the rollouts of a stage.

        Raises:
            Damaged: a file is missing or damaged.
        """
        if stage.done:
            stage.check_complete()
        return cls(stage, Rollouts.concat(part.read_chunks(Rollouts) for part in parts_of(stage)).sorted())

    @property
    def name(self) -> str:
        """Place of the stage in its run, like iter-000/explore."""
        return f"{place_of(self.stage)}/{self.stage.facts['stage']}"

    @cached_property
    def questions(self) -> dict[int, Question]:
        """The questions by their index; empty in a run of an earlier version, which did not store them."""
        known: dict[int, Question] = {}
        for part in parts_of(self.stage):
            if part.has("questions"):
                index_Q = part.read("prompts", Prompts).question_Q.tolist()
                known |= dict(zip(index_Q, part.read("questions", Questions), strict=True))
        return known

    @cached_property
    def clusters(self) -> dict[int, int]:
        """The clusters of questions by their index, as far as the draw of the iteration names them."""
        t = self.stage.facts["iteration"]
        draw = Stage(self.stage.path.parent / "draw", {"iteration": t, "stage": "draw"})
        if t < 0 or not draw.done or self.stage.facts["stage"] not in ("probe", "explore"):
            return {}
        drawn = draw.read("draw", Draw)
        known = dict(zip(drawn.question_Q.tolist(), drawn.cluster_Q.tolist(), strict=True))
        if draw.has("history"):
            seen = draw.read("history", QuestionEvidence)
            known |= dict(zip(seen.question_Q.tolist(), seen.cluster_Q.tolist(), strict=True))
        return known

    @cached_property
    def _known_clusters(self) -> dict[int, int]:
        """As `clusters`; empty where the draw is damaged, which is no reason to show no response."""
        try:
            return self.clusters
        except Damaged:
            return {}

    def find(self, choice: Choice) -> np.ndarray:
        """Return the positions of the chosen rollouts, in their order.

        Raises:
            RunError: clusters are wanted of a stage whose questions have none.
        """
        table = self.rollouts
        wanted_R = np.ones(len(table), dtype=bool)
        if choice.verdict is not None:
            wanted_R &= table.verdict_R == choice.verdict
        if choice.cut:
            wanted_R &= ~table.finished_R
        if choice.question is not None:
            wanted_R &= np.array([id == choice.question for id in table.id_R], dtype=bool)
        if choice.cluster is not None:
            if not self.clusters:
                raise RunError(
                    f"{self.name} has no clusters: they are known of the stages probe and explore of an iteration that "
                    "has a draw. Name one by --stage and --iteration, or leave --cluster out"
                )
            wanted_R &= np.isin(table.question_R, [q for q, c in self.clusters.items() if c == choice.cluster])
        return np.flatnonzero(wanted_R)

    def row(self, at: int) -> dict[str, Any]:
        """Return one rollout as plain values: the columns of an export that a reader needs, and its cluster."""
        one = self.rollouts.take([at])
        index, response = int(one.question_R[0]), one.text_R[0]
        question = self.questions.get(index)
        return {
            "rollout": rollout_name(self.stage, one.id_R[0], int(one.sample_R[0])),
            "question_id": one.id_R[0],
            "question": index,
            "iteration": self.stage.facts["iteration"],
            "stage": self.stage.facts["stage"],
            "cluster": self._known_clusters.get(index),
            **about(question, response),
            "verdict": VERDICTS[int(one.verdict_R[0])],
            "finished": bool(one.finished_R[0]),
            "n_tokens": int(one.n_tokens_R[0]),
            "response": response,
        }


def place_of(stage: Stage) -> str:
    """The folder of a stage's iteration: iter-000, or base for the policy before training."""
    t = stage.facts["iteration"]
    return "base" if t < 0 else folder_of(t)


def rollout_name(stage: Stage, question_id: str, sample: int) -> str:
    """Name of a rollout in its run: iter-000/ID/SAMPLE; of an evaluation iter-000/evaluate/NAME/ID/SAMPLE."""
    name = stage.facts["stage"]
    between = f"{name}/" if name.startswith("evaluate/") else ""
    return f"{place_of(stage)}/{between}{question_id}/{sample}"


def about(question: Question | None, response: str) -> dict[str, Any]:
    """Return the question's text, its gold answer, and the answer that a response states; None where not known."""
    if question is None:
        return dict.fromkeys(ABOUT)
    return dict(zip(ABOUT, (question.text, question.answer, stated_answer(question, response)), strict=True))


def stated_answer(question: Question, response: str) -> str | None:
    """Return the answer that a response states; None: none was found, or its verifier finds none.

    A verifier of a user's own module is not imported: the run folder names it, and may be someone else's.
    """
    verifier = VERIFIERS.get(question.verifier)
    return verifier.answer(response) if verifier else None


def with_rollouts(run: Path) -> list[Stage]:
    """Return the stages of a run that have rollouts, finished or in progress, in the order of their work.

    Raises:
        RunError: there is no such run, or it has no rollouts yet.
    """
    if not (run / "config.yaml").is_file():
        raise RunError(f"{shown(run)} is no run folder (it has no config.yaml): name a folder like runs/demo")
    stages = [s for s in stages_of(run) if has_rollouts(s.facts["stage"]) and parts_of(s)]
    if not stages:
        raise RunError(f"{shown(run)} has no rollouts yet: wait for its first chunk, or name another run")
    return stages


def parts_of(stage: Stage) -> list[Stage]:
    """Return the stage, and the rounds that it is made in while it is in progress; those of them that have rollouts."""
    return [part for part in (stage, *stage.rounds()) if part.finished_chunks()]


def has_rollouts(name: str) -> bool:
    """Whether a stage of this name has rollouts."""
    return name in ("probe", "explore") or name.startswith("evaluate/")
