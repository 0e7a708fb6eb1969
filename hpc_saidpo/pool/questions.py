"""The questions of a benchmark or of few-shot examples, in memory."""

from __future__ import annotations

from .. import settings
from ..errors import visible
from ..records import Question, Questions
from . import clean, sources
from .columns import Row


def read_questions(
    path: str, config: settings.Columns | None = None, limits: settings.Limits | None = None
) -> list[Question]:
    """Read the questions of a benchmark or of few-shot examples into memory; repeated questions stay.

    Args:
        limits: the largest input that is read; None for the limits of a pool.

    Raises:
        RunError: no such file; a line that is no question, or repeats an id: names file and line.
    """
    files = sources.resolve([path])
    rows: list[Row] = []
    bad: list[clean.Problem] = []
    where_of: dict[str, str] = {}
    for file, label in zip(files, sources.labels(files), strict=True):
        for line, row in clean.rows(file, label, config or settings.Columns(), limits=limits or settings.Limits()):
            where = f"{visible(str(file), kept='')}:{line}"
            if isinstance(row, clean.Problem):
                bad.append(row)
            elif row[clean.ID] in where_of:
                reason = clean.describe_used_id(row[clean.ID], where_of[row[clean.ID]])
                bad.append(clean.Problem(where, "bad", reason, ""))
            else:
                where_of[row[clean.ID]] = where
                rows.append(row)
    if bad:
        raise clean.bad_rows_error(bad, len(bad), len(bad) + len(rows), "mend the file")
    return list(Questions.from_rows(rows))
