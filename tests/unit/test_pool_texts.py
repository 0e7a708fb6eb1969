"""Texts of a row that mean something else than they say."""

import json

import pytest

from hpc_saidpo import settings
from hpc_saidpo.pool.columns import BadRow, make_mapper
from hpc_saidpo.pool.texts import lost_command, printed_list
from hpc_saidpo.settings.pool import Columns


@pytest.mark.parametrize(
    "command",
    [
        *("\\frac", "\\begin", "\\binom", "\\times", "\\text", "\\theta", "\\right", "\\neq", "\\nabla"),
        *("\\rho", "\\rfloor", "\\tau", "\\tan", "\\neg", "\\nleq"),
    ],
)
def test_a_command_whose_backslash_json_has_read_is_named(command):
    row = json.loads('{"question": "Let x be 2 %s{1}{2}.", "answer": "1"}' % command)  # noqa: UP031 - braces
    assert lost_command(row["question"]) == command
    with pytest.raises(BadRow) as error:
        make_mapper(Columns())(row)
    assert str(error.value) == (
        f"the question has a control character where {command} was meant: in JSON a backslash is written twice, "
        f"\\{command}"
    )
    row = json.loads('{"question": "Solve.", "answer": "%s{1}{2}"}' % command)  # noqa: UP031
    with pytest.raises(BadRow, match="the answer has a control character"):
        make_mapper(Columns())(row)


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "name\tvalue\nan\tx",
        "1\r\n2",
        "\\frac{1}{2} \\neq \\theta",
        "x\nequals y",
        "a\tan b",
        "a\rhot b",
        "a\tan x-ray",
    ],
)
def test_lines_and_tabs_are_no_lost_commands(text):
    assert lost_command(text) == "" and make_mapper(Columns())({"question": text, "answer": "1"})


@pytest.mark.parametrize(
    "text, items",
    [
        ("['a', 'b c']", ["a", "b c"]),
        ("['a' 'b']", ["a", "b"]),  # as numpy prints it
        ("[\"x; y\", 'z']", ["x; y", "z"]),
        ("[ 'a', ]", ["a"]),
        ("[1, 2]", None),
        ("[]", []),
        ("['it\\'s', '\\\\pi']", ["it's", "\\pi"]),
        ("['a', b]", None),
        ("['a'", None),
        ("[" + " " * 50_000 + "x]", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_list_that_was_printed(text, items):
    assert printed_list(text) == items


def test_tags_of_a_printed_list_are_several():
    texts = make_mapper(Columns())({"question": "q", "answer": "1", "tags": "['a', 'b']"})
    assert "a\x1fb" in texts


CHAT = [
    {"role": "system", "content": "You solve problems."}, {"role": "user", "content": "What is 1 + 1?"},
    {"role": "assistant", "content": "2"}, {"role": "user", "content": "And 2 + 2?"},
]  # fmt: skip


@pytest.mark.parametrize("column", ["prompt", "prompt.content"])
@pytest.mark.parametrize("n, expected", [(2, "What is 1 + 1?"), (4, "And 2 + 2?")])
def test_of_a_chat_the_last_message_of_the_user_is_the_question(column, n, expected):
    columns = settings.pool.Columns(question=column, answer="reward_model.ground_truth")
    row = {"prompt": CHAT[:n], "reward_model": {"ground_truth": "4"}}
    assert make_mapper(columns)(row)[1:3] == (expected, "4")
    with pytest.raises(BadRow, match=f"the question is a list of {n}"):
        make_mapper(settings.pool.Columns(question=column, answer="reward_model.ground_truth", message="only"))(row)


@pytest.mark.parametrize("place", ["question", "alt_answers", "prompt"])
def test_a_lost_backslash_is_found_in_lists_and_chats(place):
    row = {"question": "q", "answer": "1", "alt_answers": ["2"], "prompt": [{"role": "user", "content": "q"}]}
    row[place] = {"alt_answers": ["2", "\frac"], "prompt": [{"role": "user", "content": "\frac"}]}.get(place, "\frac")
    columns = settings.pool.Columns(question="prompt") if place == "prompt" else Columns()
    with pytest.raises(BadRow, match="a control character where"):
        make_mapper(columns)(row)


def test_a_chat_of_one_message_is_that_message():
    only = settings.pool.Columns(question="prompt", message="only")
    assert make_mapper(only)({"prompt": CHAT[1:2], "answer": "2"})[1] == "What is 1 + 1?"
