"""Show what the model answered: question, gold answer, verdict, response.

    hpc-saidpo show runs/demo
    hpc-saidpo show runs/demo --stage explore --iteration 0 --wrong -n 3
    hpc-saidpo show runs/demo --stage evaluate/held_out --cut --jsonl
    hpc-saidpo show runs/demo --question numbers-17 --across

Without --stage and --iteration: the newest stage that has rollouts, also one
that is in progress. The shown responses are of different questions, spread over
the stage. --across shows the responses to one question in every stage, from the
policy before training to the last one. The reason of a verdict is not stored:
the same verifier grades the shown responses again (programs run in the
sandbox). A verifier of your own is not imported, so it gives no reason here.
Exits 0, or 2 when there is no such run, stage, question or response.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..terminal import complain, until_closed
from .help import parser

N = 5
REASON_CHARS = 300


def main(arguments: Sequence[str]) -> int:
    """Print the responses. Returns the exit code."""
    from ..grader.grader import Grader  # help does not need them
    from ..report.show import describe
    from ..settings.rollouts import Grader as Limits

    values = options().parse_args(arguments)
    if values.across and values.question is None:
        complain("show", "--across needs --question ID; `hpc-saidpo show RUN` prints some ids")
        return 2
    try:
        with until_closed(), Grader(Limits(reason_chars=REASON_CHARS)) as grader:
            for n, (heading, row, judgement) in enumerate(chosen(values, grader)):
                if values.jsonl:
                    reason = judgement.reason if judgement else None
                    print(json.dumps({**row, "reason": reason}))
                else:
                    print("\n" * (n > 0) + (f"{heading}\n\n" if heading else "") + describe(row, judgement))
    except RunError as error:
        complain("show", error)
        return 2
    return 0


def options() -> argparse.ArgumentParser:
    """The arguments of the verb."""
    made = parser("show", __doc__)
    made.add_argument("run", type=Path, help="the run folder, or the folder of a stand-alone evaluation")
    made.add_argument("--stage", help="probe, explore or evaluate/NAME; default: the newest")
    made.add_argument("--iteration", type=iteration, help="number from 0, or base: before training; default: the last")
    verdicts = made.add_mutually_exclusive_group()
    for name in ("right", "wrong", "ungradable"):
        verdicts.add_argument(f"--{name}", dest="verdict", action="store_const", const=name, help=f"only {name} ones")
    made.add_argument("--cut", action="store_true", help="only those that were cut at rollouts.max_new_tokens")
    made.add_argument("--cluster", type=int, help="only of questions of this cluster")
    made.add_argument("--question", metavar="ID", help="only of this question")
    made.add_argument("-n", type=positive, default=N, help=f"number of responses; with --across: a stage ({N})")
    made.add_argument("--across", action="store_true", help="one question in all stages, from before to after")
    made.add_argument("--jsonl", action="store_true", help="print JSON lines")
    return made


def iteration(text: str) -> int:
    """The number of an iteration; -1 for "base"."""
    if text == "base" or text.isdecimal():
        return -1 if text == "base" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 0 nor base")


def positive(text: str) -> int:
    """A number of at least 1."""
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")


def chosen(values: argparse.Namespace, grader: Any) -> Iterator[tuple[str, dict, Any]]:
    """Yield (heading, row, verdict of today) of every shown response; the heading is of the first of a stage, else "".

    Raises:
        RunError: there is no such stage, question or response.
    """
    from ..records import CORRECT, UNGRADABLE, WRONG
    from ..report.responses import Choice
    from ..report.show import across, choose_stages, counted, rows_of, some_of

    if values.across:
        parts = ((a, found[: values.n]) for a, found in across(values.run, values.question, values.stage))
    else:
        verdict = {"right": CORRECT, "wrong": WRONG, "ungradable": UNGRADABLE, None: None}[values.verdict]
        choice = Choice(verdict, values.cut, values.cluster, values.question)
        responses = newest(choose_stages(values.run, values.stage, values.iteration), choice)
        parts = iter([(responses, some_of(responses, choice, values.n))])
    for responses, at in parts:
        state = "" if responses.stage.done else ", in progress"
        heading = f"{responses.name}{state}: {len(responses.rollouts):,} responses, {counted(responses)}"
        for row, judgement in rows_of(responses, at, grader.judge):
            yield heading, row, judgement
            heading = ""


def newest(stages: Sequence[Any], choice: Any) -> Any:
    """The rollouts of the first of the stages that has a response to the chosen question; of the first without one."""
    from ..report.responses import Responses

    for stage in stages if choice.question is not None else ():
        responses = Responses.read(stage)
        if choice.question in responses.rollouts.id_R:
            return responses
    return Responses.read(stages[0])
