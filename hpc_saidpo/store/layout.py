"""Names and places in a run folder. Imports nothing heavy.

    runs/<name>/
      lock                 the job that writes the run now
      config.yaml          the resolved configuration
      env.json             versions, GPUs, hosts, ranks: one entry per start
      pool.json, tags.json identity of a pool from files, and of knowledge points from a language model
      models.json          ways in which the policy's architecture is decoded and trained
      metrics.jsonl        one line per iteration
      progress.json        signs of life of the present start, failure.json: the failure of one rank (`life`)
      work.json            busy time and tokens of each rank in each stage (`life`)
      log/start-000/       one file per rank; a folder for each start
      base/                the policy before training: its evaluation
      iter-000/ probe/ draw/ explore/ pairs/ policy/ evaluate/
      report.html
      tensorboard/         event files, one for each iteration (report.tensorboard)
    runs/.shared/          pools from files, replies of taggers, embeddings, clusters, questions that are too long,
                           converted policies, reference log-probabilities: keyed by content, shared by runs
    runs/.hashes.json      SHA-256 of input files that starts have read

Files are written under a temporary name, synced and renamed. Root writes a stage's DONE last, after a barrier. Readers
trust no stage without DONE.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import RunError, shown
from . import disk

TENSORBOARD = "tensorboard"  # folder of event files (report.tensorboard)
PREPARATION = "prepare-"  # begin of the name of a run that tools/submit.py makes for what several runs share


def newest_policy(run: Path) -> Path | None:
    """Return the policy of a run folder's last finished iteration; None if the folder is not a run folder.

    Raises:
        RunError: the run has no finished iteration.
    """
    if not (run / "config.yaml").is_file() or (run / "config.json").exists():
        return None
    finished = [folder for _, folder in iterations_of(run) if disk.exists(folder / "DONE")]
    if not finished:
        raise RunError(f"policy.path={shown(run)}: no iteration of that run is finished: it has no policy yet")
    return finished[-1] / "policy" / "model"


def folder_of(iteration: int | str) -> str:
    """Return the name of an iteration's folder."""
    return iteration if isinstance(iteration, str) else f"iter-{iteration:03d}"


def iterations_of(run: Path) -> list[tuple[int, Path]]:
    """Return the iterations of a run folder with their folders, in order."""
    named = [re.fullmatch(r"iter-([0-9]{3,9})", name) for name in disk.names_in(run)]
    return sorted((int(match[1]), run / match[0]) for match in named if match)
