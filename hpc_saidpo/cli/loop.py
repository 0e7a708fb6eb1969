"""The work of the verb `run`: prepare, run the loop, write the report, return the exit code."""

from __future__ import annotations

import functools
import logging
from typing import Any

from .. import loop
from ..errors import Ended
from ..prepare import prepare_run
from ..progress import log, log_lines
from ..records import Outcome
from ..report import page, scalars
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
    outcome = run_to_end(settings, run)
    if run.world.is_root:
        page.write(run, outcome, plain)
        log_lines(page.table(outcome))
    run.note_end(outcome.stopped or outcome.paused)
    if outcome.paused:
        log.info("stopped after %s", outcome.paused)
    if outcome.stopped:
        log_lines(outcome.stopped, logging.ERROR)
    return EXIT_SIGNATURE if outcome.stopped else 0


def run_to_end(settings: Settings, run: RunDir) -> Outcome:
    """Prepare the run and run the loop until it ends. Collective."""
    job: Job | None = None
    if settings.report.tensorboard:
        run.world.on_root(lambda: bool(scalars.require_tensorboard()))
    try:
        ready = prepare_run(settings, run)
        job = Job(settings, run, ready.pool, ready.benchmarks, ready.cluster_N, ready.health)
        if settings.report.tensorboard:
            job.on_finished = functools.partial(scalars.follow, run.path)
        loop.run(job)
    except Ended as ended:
        if job is None:  # tags.mode=export: there is no run yet
            return Outcome({}, [], settings.policy.path, paused=str(ended))
        return job.outcome(ended)
    return job.outcome()
