"""What is a reasoning step; the responses have the shapes that models write."""

import re

import pytest
from pydantic import ValidationError

from hpc_saidpo import settings
from hpc_saidpo.rollouts import steps

PARAGRAPHS = """To find the mean of \\(a\\) and \\(b\\), we add them first:

\\[
a + b = 3 + 5 = 8.
\\]

Then we halve the sum:

\\[
\\frac{8}{2} = 4
\\]

Therefore, the mean is:

\\[
\\boxed{4}
\\]"""
NUMBERED = """Let's break it down:

1. **Add the numbers.** This gives

   $$ 3 + 5 = 8 $$

2. **Halve the sum.** With \\(8 / 2 = 4\\) we have

   \\[ \\begin{aligned}
   x &= 8 / 2

   \\\\ &= 4
   \\end{aligned} \\].

The mean is \\(\\boxed{4}\\)."""
HEADED = "## Step 1: Add\n3 + 5 = 8\n\n## Step 2: Halve\n8 / 2 = 4\n\n**Step 3:** done\nThe final answer is 4"
ONE_BLOCK = "We add:\n\\[\n3 + 5\n= 8\n\\]\nand halve:\n\\[ 8 / 2 = 4 \\]\nSo it is 4."
CODE = "A program tells:\n\n```python\na = 3\n\nb = 5\n\nprint(a + b)\n```\n\n```output\n8\n```\n\nSo it is 8."


@pytest.mark.parametrize(
    "response, expected",
    [
        ("", 0),
        (" \n\n \t", 0),
        ("<think>\n</think>\n", 0),
        ("one line", 1),
        ("a\nb\n\n", 2),
        ("first\n\nsecond\n \t\nthird", 3),
        ("first\r\n\r\nsecond", 2),
        (PARAGRAPHS, 3),
        (NUMBERED, 4),
        (HEADED, 3),
        (ONE_BLOCK, 3),
        (CODE, 2),
        ("<think>\nfirst\n\nsecond\n</think>\n\nthird", 3),
        ("\\[ x \\]", 1),  # something was said
        ("\\[ x \\]\n\nfirst\n\nsecond", 3),
        ("first\n\n\\[ not closed\n\nsecond\n\nthird", 4),
        ("first\n\nclosed only \\]\n\nsecond", 3),
        ("\\begin{align}\na\n\n\\end{equation}\n\nb", 3),  # no environment: its end is another's
        ("first $$a$$ and $$b\n\nc$$ second\n\n$$d$$, $$e$$.\n\nthird", 2),
        ("first\n\n\x00\n\nsecond", 2),
    ],
)
def test_paragraphs(response, expected):
    assert steps.count_steps(response) == expected


@pytest.mark.parametrize(
    "rule, response, expected",
    [
        ("line", PARAGRAPHS, 12),
        ("line", "", 0),
        ("marker", NUMBERED, 2),
        ("marker", HEADED, 3),
        ("marker", "Step 1. a\nstep 2: b\n(3) c\n4) d\n3.5 is no step\n2024 is none", 4),
        ("marker", PARAGRAPHS, 3),  # it has no marker
        ("/\\n#+ /", HEADED, 2),
        ("/(\\n)(\\n)/", "a\n\nb\n\n\n\nc", 3),
        ("/;/", ";", 1),
        ("/;/", "", 0),
    ],
)
def test_other_rules(rule, response, expected):
    assert steps.count_steps(response, rule) == expected


@pytest.mark.parametrize(
    "rule, says",
    [
        ("paragraphs", "none of paragraph, line, marker"),
        ("/", "between slashes"),
        ("//", "between slashes"),
        ("/(/", "no regular expression"),
        ("/x*/", "matches the empty text"),
    ],
)
def test_a_wrong_rule_is_refused_with_the_configuration(rule, says):
    with pytest.raises(ValidationError, match=says):
        settings.Rollouts(steps=rule)
    assert settings.Rollouts(steps="/\\n---\\n/").steps == "/\\n---\\n/"


@pytest.mark.parametrize(
    "hostile, expected",
    [
        ("\\begin{a}", 1),
        ("\\[", 1),
        ("\\begin{a}\\end{b}", 1),
        ("\\begin{", 1),
        ("$$", 1),
        ("\n \n x", None),
        ("\n", 0),
        ("1. ", 1),
        ("\n\n$$$$$$$$", 1),
        ("a\n\n$$$$$$$$", None),
    ],
)
def test_a_million_hostile_characters_take_one_pass(hostile, expected, monkeypatch):
    """Counted in looks at a delimiter, not in seconds: ten times the text, ten times the looks."""
    looks = 0
    roles = steps._roles

    def counted(delimiter):
        nonlocal looks
        looks += 1
        return roles(delimiter)

    monkeypatch.setattr(steps, "_roles", counted)
    by_size = []
    for n in (10_000, 100_000):
        looks = 0
        found = steps.count_steps(hostile * n)
        assert found == (n if expected is None else expected)
        by_size.append(looks)
    assert by_size[1] == 10 * by_size[0]
    assert all(steps.count_steps(hostile * 100_000, rule) is not None for rule in ("line", "marker"))


def test_a_separator_of_the_users_sees_so_many_characters_only():
    assert steps.count_steps("a;" * steps.MAX_SEPARATED_CHARS, "/;/") == steps.MAX_SEPARATED_CHARS // 2
    assert re.search("100,000", steps.count_steps.__doc__) and steps.MAX_SEPARATED_CHARS == 100_000
