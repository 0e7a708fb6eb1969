"""Names and places of what a run folder holds. Imports nothing heavy.

    runs/<name>/
      lock                 who writes the run now
      config.yaml          the resolved configuration
      env.json             versions, hosts, ranks: one entry per start
      pool.json, tags.json what a pool from files, and knowledge points by a language model, are known by
      metrics.jsonl        one line per iteration
      log/                 one file per rank and start
      base/                the policy before training: its evaluation
      iter-000/ probe/ draw/ explore/ pairs/ policy/ evaluate/
      report.html
    runs/.shared/          pools from files, replies of taggers, embeddings, clusters, converted policies, reference
                           log-probabilities: keyed by content, shared by runs

Files are written under a temporary name, synced and renamed; a stage's DONE comes last, from root, after a barrier;
readers trust nothing without it.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import RunError


def newest_policy(run: Path) -> Path | None:
    """The policy of a run folder's last finished iteration; None when the folder is no run.

    Raises:
        RunError: it is a run, but no iteration of it is finished.
    """
    if not (run / "config.yaml").is_file() or (run / "config.json").exists():
        return None
    finished = [folder for _, folder in iterations_of(run) if (folder / "DONE").exists()]
    if not finished:
        raise RunError(f"policy.path={run}: no iteration of that run is finished: it has no policy yet")
    return finished[-1] / "policy" / "model"


def folder_of(iteration: int | str) -> str:
    """Name of an iteration's folder."""
    return iteration if isinstance(iteration, str) else f"iter-{iteration:03d}"


def iterations_of(run: Path) -> list[tuple[int, Path]]:
    """The iterations of a run folder and their folders, in order."""
    named = [(re.fullmatch(r"iter-(\d{3,})", path.name), path) for path in run.glob("iter-*")]
    return sorted((int(match[1]), path) for match, path in named if match)
