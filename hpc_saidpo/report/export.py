"""Write the preference pairs or the graded rollouts of a run as one file that other programs read.

Pairs are in TRL's preference format (prompt, chosen, rejected), ready for `datasets.load_dataset("json", ...)` and
`trl.DPOTrainer`; further columns name the origin of each pair. The columns that end with `_tokens` hold the token ids
that the policy read and drew; texts that are tokenised again may give others. An export of a run of an earlier version,
which has none, lacks these columns. Rollouts are those of the probe, the exploration and the evaluations, by iteration
(-1: the policy before training), question and sample, independently of the chunk, shard or rank that they came from.
Each has the text of its question, the gold answer and the answer that the response states (`extracted`); null
where it states none, and in a run of an earlier version, which did not store questions. `rollout`, `chosen_rollout` and
`rejected_rollout` name a rollout in its run as iter-000/<question id>/<sample>; that of an evaluation is named
iter-000/evaluate/<benchmark>/<question id>/<sample>.

Both formats hold the same rows:

* jsonl: one object per line, UTF-8. Texts are escaped only where JSON requires it.
* parquet: one schema for the whole file, written batch by batch.

The store keeps lone surrogates, but UTF-8 and Parquet cannot hold them: each becomes U+FFFD. Seeds are written as
decimal digits: they have 64 bits, and most JSON readers would round them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError, shown
from ..records import VERDICTS, Pairs, Rollouts
from ..store.contents import lacking
from ..store.files import make_folder, replace
from ..store.layout import folder_of
from ..store.stage import Stage, stages_of
from .responses import ABOUT, Responses, about, has_rollouts, rollout_name

BATCH = 4096  # rows in memory at a time
IDS = "list<element: int32>"  # token ids
# The columns of both exports in order, with the names of their Arrow types.
COLUMNS = {
    "pairs": {
        "prompt": "string", "chosen": "string", "rejected": "string",
        "question_id": "string", "question": "int64", "iteration": "int32",
        "chosen_rollout": "string", "rejected_rollout": "string",
        "chosen_finished": "bool", "rejected_finished": "bool",
        "cluster": "int64", "pass_rate": "double", "steps": "double", "tokens": "double",
        "prompt_tokens": IDS, "chosen_tokens": IDS, "rejected_tokens": IDS,
    },
    "rollouts": {
        "rollout": "string", "question_id": "string", "question": "int64", "iteration": "int32", "stage": "string",
        "question_text": "string", "gold": "string", "extracted": "string",
        "sample": "int32", "response": "string", "verdict": "string", "n_tokens": "int32", "n_steps": "int32",
        "finished": "bool", "seconds": "double", "seed": "string", "response_tokens": IDS,
    },
}  # fmt: skip
STAGES = {"pairs": "pairs", "rollouts": "probe, explore or evaluate"}
_SURROGATE = re.compile("[\ud800-\udfff]")


def export(run: Path, content: str, form: str, out: Path, iteration: int | None = None) -> int:
    """Write the finished pairs or rollouts of a run to a file that appears whole or not at all.

    Args:
        run: the run folder; it is only read, and the run may still be active.
        content: a key of `COLUMNS`.
        form: a key of `WRITERS`.
        iteration: export this iteration only; None for all.

    Returns:
        The number of written rows.

    Raises:
        RunError: no such run folder, nothing finished to export, a damaged file, a full disk, or no pyarrow.
    """
    stages = finished_stages(run, content, iteration)
    columns = COLUMNS[content]
    if lacking(run):
        columns = {name: kind for name, kind in columns.items() if kind != IDS}
    make_folder(out.parent)
    return replace(out, lambda temporary: WRITERS[form](temporary, columns, _batches(content, stages, columns)))


def finished_stages(run: Path, content: str, iteration: int | None = None) -> dict[int, list[Stage]]:
    """Return the finished stages to export, by iteration.

    Raises:
        RunError: there is no such run, or it has no such finished stage.
    """
    if not run.is_dir():
        raise RunError(f"there is no run folder {shown(run)}: name a folder of a run, like runs/demo")
    finished: dict[int, list[Stage]] = {}
    for stage in stages_of(run):
        t, name = stage.facts["iteration"], stage.facts["stage"]
        wanted = name == "pairs" if content == "pairs" else has_rollouts(name)
        if wanted and stage.done and iteration in (None, t):
            finished.setdefault(t, []).append(stage)
    if not finished:
        where = run if iteration is None else run / folder_of(iteration)
        raise RunError(
            f"{shown(where)} has no finished {STAGES[content]} stage, so there are no {content} to "
            "export: resume the run, or name another run or --iteration"
        )
    return finished


def pairs_rows(pairs: Pairs) -> Iterator[list[dict]]:
    """Yield the rows of a table of pairs, in its order, in batches."""
    for rows in _cut(len(pairs)):
        part = pairs.take(rows)
        ids, iterations = _clean(part.id_B), part.iteration_B.tolist()
        columns = {
            "prompt": _clean(part.prompt_B),
            "chosen": _clean(part.chosen_B),
            "rejected": _clean(part.rejected_B),
            "question_id": ids,
            "question": part.question_B.tolist(),
            "iteration": iterations,
            "chosen_rollout": list(map(_rollout, iterations, ids, part.chosen_sample_B.tolist())),
            "rejected_rollout": list(map(_rollout, iterations, ids, part.rejected_sample_B.tolist())),
            "chosen_finished": part.chosen_finished_B.tolist(),
            "rejected_finished": part.rejected_finished_B.tolist(),
            "cluster": part.cluster_B.tolist(),
            "pass_rate": part.pass_rate_B.tolist(),
            "steps": part.steps_B.tolist(),
            "tokens": part.tokens_B.tolist(),
            "prompt_tokens": _lists(part.prompt_tokens_B),
            "chosen_tokens": _lists(part.chosen_tokens_B),
            "rejected_tokens": _lists(part.rejected_tokens_B),
        }
        yield _rows(columns)


def rollout_rows(parts: Sequence[Responses]) -> Iterator[list[dict]]:
    """Yield the rows of stages of one iteration, by question and sample, in batches.

    Args:
        parts: stages with the same numbers of questions: probe and explore, or one evaluation.
    """
    whole = Rollouts.concat([part.rollouts for part in parts])
    stage_R = np.repeat(np.arange(len(parts)), [len(part.rollouts) for part in parts])
    order, questions = np.lexsort((whole.sample_R, whole.question_R)), {}
    for part in parts:
        questions |= part.questions
    for rows in _cut(len(whole)):
        part = whole.take(order[rows])
        ids, samples, texts = _clean(part.id_R), part.sample_R.tolist(), part.text_R
        stages = [parts[i].stage for i in stage_R[order[rows]]]
        facts = [about(questions.get(q), text) for q, text in zip(part.question_R.tolist(), texts, strict=True)]
        columns = {
            "rollout": list(map(rollout_name, stages, ids, samples)),
            "question_id": ids,
            "question": part.question_R.tolist(),
            "iteration": [stage.facts["iteration"] for stage in stages],
            "stage": [stage.facts["stage"] for stage in stages],
            **{name: _clean(row[name] for row in facts) for name in ABOUT},
            "sample": samples,
            "response": _clean(texts),
            "verdict": [VERDICTS[v] for v in part.verdict_R.tolist()],
            "n_tokens": part.n_tokens_R.tolist(),
            "n_steps": part.n_steps_R.tolist(),
            "finished": part.finished_R.tolist(),
            "seconds": part.seconds_R.tolist(),
            "seed": list(map(str, part.seed_R.tolist())),
            "response_tokens": _lists(part.tokens_R),
        }
        yield _rows(columns)


def write_jsonl(path: Path, columns: Mapping[str, str], batches: Iterable[list[dict]]) -> int:
    """Write rows as JSON lines. Returns their number."""
    n = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for rows in batches:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            n += len(rows)
    return n


def write_parquet(path: Path, columns: Mapping[str, str], batches: Iterable[list[dict]]) -> int:
    """Write rows as Parquet, a row group per batch. Returns their number.

    Raises:
        RunError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise RunError(
            f"--format parquet needs pyarrow, which cannot be imported ({error}): pip install 'hpc_saidpo[export]', "
            "or use --format jsonl"
        ) from error
    ids = pyarrow.list_(pyarrow.int32())
    kinds = [(name, ids if kind == IDS else pyarrow.type_for_alias(kind)) for name, kind in columns.items()]
    schema = pyarrow.schema(kinds)
    n = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as file:
        for rows in batches:
            file.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema))
            n += len(rows)
    return n


WRITERS = {"jsonl": write_jsonl, "parquet": write_parquet}


def _batches(content: str, stages: Mapping[int, Sequence[Stage]], columns: Mapping[str, str]) -> Iterator[list[dict]]:
    """Yield these columns of the rows of all stages in batches, after a check that no file is missing."""
    for rows in _whole_batches(content, stages):
        yield [{name: row[name] for name in columns} for row in rows]


def _whole_batches(content: str, stages: Mapping[int, Sequence[Stage]]) -> Iterator[list[dict]]:
    for finished in stages.values():
        if content == "pairs":
            finished[0].check_complete()
            yield from pairs_rows(finished[0].read("pairs", Pairs))
        else:
            read = [Responses.read(stage) for stage in finished]
            of_pool = [part for part in read if part.stage.facts["stage"] in ("probe", "explore")]
            for parts in (of_pool, *([part] for part in read if part not in of_pool)):
                yield from rollout_rows(parts)


def _rollout(iteration: int, question_id: str, sample: int) -> str:
    """Name of a rollout of the pool in its run."""
    return f"{folder_of(iteration)}/{question_id}/{sample}"


def _cut(n: int) -> Iterator[np.ndarray]:
    """Yield the row numbers of each batch of n rows."""
    return (np.arange(start, min(start + BATCH, n)) for start in range(0, n, BATCH))


def _lists(rows: Iterable[np.ndarray]) -> list[list[int]]:
    return [row.tolist() for row in rows]


def _clean(texts: Iterable[Any]) -> list[Any]:
    """Replace lone surrogates; None stays."""
    return [text and _SURROGATE.sub("\ufffd", text) for text in texts]


def _rows(columns: Mapping[str, Sequence]) -> list[dict]:
    """Turn columns into rows."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
