"""The page of a run: report.html, one file that can be mailed. Pure; `writer` writes it."""

from __future__ import annotations

from . import sections
from .clusters import clusters, is_shown
from .facts import Facts
from .shell import document
from .verdict import top


def page(about: Facts) -> str:
    """Format everything that is known about a run as one HTML page without scripts."""
    health = about.outcome.health
    return document(
        f"SAI-DPO run {about.name}",
        top(about),
        sections.signatures(about),
        sections.accuracy(about),
        sections.questions(about),
        clusters(health, about.outcome.iterations) if is_shown(health) else "",
        sections.training(about),
        sections.examples(about),
        sections.work(about),
        sections.changes(about),
        sections.configuration(about),
    )
