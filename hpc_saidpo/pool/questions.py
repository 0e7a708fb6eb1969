"""The questions of a benchmark or of few-shot examples, in memory."""

from __future__ import annotations

from .. import settings
from ..records import Question, Questions
from . import clean, sources


def read_questions(path: str, config: settings.Columns | None = None) -> list[Question]:
    """The questions of a benchmark or of examples, in memory; repeated ones stay.

    Raises:
        RunError: no such file; a line that is no question, or repeats an id: file and line named.
    """
    files, found, bad = sources.resolve([path]), [], []
    where_of: dict[str, str] = {}
    for file, label in zip(files, sources.labels(files), strict=True):
        for line, row in clean.rows(file, label, config or settings.Columns()):
            where = f"{file}:{line}"
            if isinstance(row, clean.Problem):
                bad.append(row)
            elif row[clean.ID] in where_of:
                bad.append(clean.Problem(where, "bad", clean.used(row[clean.ID], where_of[row[clean.ID]]), ""))
            else:
                where_of[row[clean.ID]] = where
                found.append(row)
    if bad:
        raise clean.told(bad, len(bad), len(bad) + len(found), "mend the file")
    return list(Questions.from_rows(found))
