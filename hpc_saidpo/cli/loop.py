"""The loop as a program's work: run it, write its report, give its exit code."""

from __future__ import annotations

from .. import loop
from ..errors import Ended
from ..progress import log
from ..records import Outcome
from ..report import page
from ..settings.whole import Settings
from ..stages import Job, prepare
from ..store.run import RunDir
from .failures import EXIT_SIGNATURE


def work(settings: Settings, plain: dict, run: RunDir) -> int:
    """Run SAI-DPO and write its report. Collective.

    Args:
        plain: the settings as plain values, for the report.

    Returns:
        0, or EXIT_SIGNATURE when depletion or another failure signature ended the run.
    """
    outcome = outcome_of(settings, run)
    if run.world.is_root:
        page.write(run, outcome, plain)
        log.info("%s", page.table(outcome))
    if outcome.paused:
        log.info("stopped after %s", outcome.paused)
    if outcome.stopped:
        log.error("%s", outcome.stopped)
    return EXIT_SIGNATURE if outcome.stopped else 0


def outcome_of(settings: Settings, run: RunDir) -> Outcome:
    """Prepare the run and run the loop to its end. Collective."""
    job: Job | None = None
    try:
        job = prepare(settings, run)
        loop.run(job)
    except Ended as ended:
        if job is None:  # tags.mode=export: there is no run yet
            return Outcome({}, [], settings.policy.path, paused=str(ended))
        return job.outcome(ended)
    return job.outcome()
