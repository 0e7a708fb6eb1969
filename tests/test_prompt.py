import pytest

from hpc_saidpo import prompt
from hpc_saidpo.records import Question, RunError

QUESTION = Question(id="q", text="2 + \\frac{1}{2} = {x}?", answer="5/2", subject="sums")
EXAMPLES = {"sums": [Question(id=f"e{i}", text=f"{i} + 1 =", answer=str(i + 1), subject="sums") for i in range(3)]}


def test_plain_few_shot():
    config = prompt.Config(chat=False, question="Q: {question}\nA:", answer=" {answer}", separator="\n\n", shots=2)
    text = prompt.render(QUESTION, EXAMPLES, config, chat_template=None)
    assert text == "Q: 0 + 1 =\nA: 1\n\nQ: 1 + 1 =\nA: 2\n\nQ: 2 + \\frac{1}{2} = {x}?\nA:"


def test_chat_few_shot_goes_through_the_template():
    config = prompt.Config(system="be brief", shots=1)
    messages = prompt.render(QUESTION, EXAMPLES, config, chat_template=lambda m: m)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[-1]["content"] == QUESTION.text


def test_too_few_examples_are_named():
    with pytest.raises(RunError, match=r"4 few-shot examples.*has 3 for subject 'sums'"):
        prompt.render(QUESTION, EXAMPLES, prompt.Config(shots=4), chat_template=None)


def test_a_template_without_the_question_is_refused():
    with pytest.raises(ValueError, match="question must contain"):
        prompt.Config(question="solve:")
