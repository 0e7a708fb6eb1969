import time

import pytest

from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG
from hpc_saidpo.verify import extract, verify


@pytest.mark.parametrize(
    "response, gold, verdict",
    [
        ("so we get \\boxed{42}", "42", CORRECT),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}", "1/2", CORRECT),
        ("\\boxed{\\frac{3}{6}}", "\\frac12", WRONG),  # \frac12 is not read as a number; the forms differ
        ("work\n#### 1,234", "1234", CORRECT),
        ("The answer is 0.50.", "1/2", CORRECT),
        ("The answer is: 7", "7", CORRECT),
        (" 12", "12", CORRECT),
        ("12345", "12346", WRONG),
        ("line one\nline two", "two", WRONG),
        ("#### 4.5e3", "4500", CORRECT),
        ("\\boxed{x+1}", "x + 1", CORRECT),
        ("<think>\\boxed{9}</think> the answer is 8", "8", CORRECT),
        ("", "3", WRONG),
        ("\\boxed{3", "3", WRONG),
        ("anything", "  ", UNGRADABLE),
        ("1/0", "1", WRONG),
        ("#### -7", "-7", CORRECT),
        ("#### 7\nand then 8", "7", CORRECT),
    ],
)
def test_verdicts(response, gold, verdict):
    assert verify(response, gold) == verdict


def test_the_last_box_is_matched_by_braces():
    assert extract("\\boxed{a} and \\boxed{\\sqrt{b^{2}}}") == "\\sqrt{b^{2}}"


@pytest.mark.parametrize(
    "hostile",
    [
        "\\boxed{__import__('os').system('touch /tmp/hpc_saidpo_owned')}",
        "#### " + "9" * 200_000,
        "#### 9**9**9**9",
        "#### 1e9999",
        "\\boxed{" * 5000,
        "\x00\ud800 the answer is \x00",
        "answer is " * 20_000,
    ],
)
def test_hostile_output_is_wrong_and_quick(hostile):
    started = time.process_time()
    assert verify(hostile, "3") == WRONG
    assert time.process_time() - started < 5  # not a speed test: a hang is the failure
