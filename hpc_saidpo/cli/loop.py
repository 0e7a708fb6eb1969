"""The work of the verb `run`: prepare, run the loop, write the report, return the exit code."""

from __future__ import annotations

import functools
import logging
from typing import Any

from .. import loop
from ..errors import Ended, reason_of
from ..parallel.stop import Stopped
from ..prepare import prepare_run
from ..progress import log, log_lines
from ..records import Outcome
from ..report import console, scalars
from ..report.facts import COMPLETE, ENDED, INTERRUPTED, PAUSED
from ..report.writer import Moment, Writer
from ..screen import columns
from ..settings.whole import Settings
from ..stages import Job
from ..store.run import RunDir
from .failures import EXIT_SIGNATURE


def work(settings: Settings, plain: dict[str, Any], run: RunDir) -> int:
    """Run SAI-DPO and write its report. Collective.

    Args:
        plain: the settings as plain values, for the report.

    Returns:
        0, or EXIT_SIGNATURE when depletion or another failure signature ended the run.
    """
    report = Writer(run, plain)
    outcome = run_to_end(settings, run, report)
    if run.world.is_root:
        log_lines(console.table(outcome, columns()))
    run.note_end(outcome.stopped or outcome.paused)
    if outcome.paused:
        log.info("stopped after %s", outcome.paused)
    if outcome.stopped:
        log_lines(outcome.stopped, logging.ERROR)
    if report.last:
        log_lines(console.ending(run.path, report.last))
    return EXIT_SIGNATURE if outcome.stopped else 0


def run_to_end(settings: Settings, run: RunDir, report: Writer) -> Outcome:
    """Prepare the run and run the loop until it ends; write the report of its end, whatever it is. Collective."""
    job: Job | None = None
    if settings.report.tensorboard:
        run.world.on_root(lambda: bool(scalars.require_tensorboard()))

    def write(state: str, reason: str = "", ended: Ended | None = None) -> None:
        if job is not None and run.world.is_root:
            report.write_end(job, state, reason, ended)
        elif run.world.is_root:
            report.write(Moment(state, reason, Outcome({}, [], settings.policy.path), {}))

    try:
        ready = prepare_run(settings, run)
        job = Job(settings, run, ready.pool, ready.benchmarks, ready.clustered)
        if settings.report.tensorboard:
            job.on_finished = functools.partial(scalars.follow, run.path)
        report.follow(job)
        loop.run(job)
    except Ended as ended:
        write(ENDED if ended.is_failure else PAUSED, str(ended), ended)
        if job is None:  # tags.mode=export: there is no run yet
            return Outcome({}, [], settings.policy.path, paused=str(ended))
        return job.outcome(ended)
    except Stopped as stopped:
        write(INTERRUPTED, f"stopped by {stopped}: all finished work is stored, the same command goes on")
        log.info("report: %s", run.path / "report.html")
        raise
    except Exception as error:
        write(INTERRUPTED, reason_of(error))
        raise
    write(COMPLETE)
    return job.outcome()
