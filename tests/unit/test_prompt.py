import dataclasses
from pathlib import Path

import pytest
import yaml
from support.converted import locate_smollm2
from transformers import AutoTokenizer

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.records import Prompts, Question
from hpc_saidpo.rollouts import prompt, prompts
from hpc_saidpo.settings.keys import conf_folder

QUESTION = Question(id="q", text="2 + \\frac{1}{2} = {x}?", answer="5/2", subject="sums")
EXAMPLES = {"sums": [Question(id=f"e{i}", text=f"{i} + 1 =", answer=str(i + 1), subject="sums") for i in range(3)]}


def test_plain_few_shot():
    config = settings.Prompt(chat=False, question="Q: {question}\nA:", answer=" {answer}", separator="\n\n", shots=2)
    text = prompt.render(QUESTION, EXAMPLES, config, chat_template=None)
    assert text == "Q: 0 + 1 =\nA: 1\n\nQ: 1 + 1 =\nA: 2\n\nQ: 2 + \\frac{1}{2} = {x}?\nA:"


def test_chat_few_shot_goes_through_the_template():
    config = settings.Prompt(system="be brief", shots=1)
    messages = prompt.render(QUESTION, EXAMPLES, config, chat_template=lambda m: m)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[-1]["content"] == QUESTION.text


def test_too_few_examples_are_named():
    with pytest.raises(RunError, match=r"4 few-shot examples.*has 3 for subject 'sums'"):
        prompt.render(QUESTION, EXAMPLES, settings.Prompt(shots=4), chat_template=None)


def test_a_template_without_the_question_is_refused():
    with pytest.raises(ValueError, match="question must contain"):
        settings.Prompt(question="solve:")


def test_only_an_examples_answer_is_filled_in():
    question = Question(id="q", text="What is {answer}?", answer="42")
    config = settings.Prompt(chat=False, question="{question} End with \\boxed{answer}.")
    assert prompt.render(question, {}, config, None) == "What is {answer}? End with \\boxed{answer}."


def test_an_example_may_show_its_solution_in_place_of_its_answer():
    """Of a question with tests the answer is the tests: an example shows code."""
    solved = Question(
        id="e", text="one()", answer="assert one() == '{solution}'", solution="def one(): return '{answer}'"
    )
    shown = [prompt.render(QUESTION, {"sums": [solved]}, settings.Prompt(chat=False, shots=1, answer=answer), None)
             for answer in ("{solution}", "{answer}")]  # fmt: skip
    assert solved.solution in shown[0] and "assert" not in shown[0]
    assert solved.answer in shown[1] and "def" not in shown[1]


PRESETS = sorted((conf_folder() / "rollouts" / "prompt").glob("*.yaml"), key=lambda p: p.stem)
SOLVED = Question(id="e", text="1+1?", answer="2", subject="sums")


@pytest.fixture(scope="module")
def smollm2():
    """The real tokenizer, with its chat template."""
    gguf = Path(locate_smollm2())
    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_every_preset_renders(path, smollm2):
    values = yaml.safe_load(path.read_text())
    assert set(values) == {f.name for f in dataclasses.fields(settings.Prompt)} and path.read_text().startswith("# ")
    config = settings.Prompt(**values)

    def chat_template(messages):
        return smollm2.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    text = prompt.render(QUESTION, {"sums": [SOLVED] * config.shots}, config, chat_template)
    assert text.count(QUESTION.text) == 1 and QUESTION.answer not in text
    assert text.startswith("<|im_start|>system\n") == text.endswith("<|im_start|>assistant\n") == config.chat
    wanted = {
        "qwen25_math": "system\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>",
        "llama31": "Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct.\n\nWhere [answer] is",
        "smollm2": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>",
    }
    assert wanted.get(path.stem, "") in text


def test_the_first_prompt_is_shown_as_it_is(micro):
    config = settings.Prompt(chat=False, question="Q: {question}  \n")
    table = prompts.Renderer([QUESTION], {}, micro, config).table([0])
    shown = prompts.describe(table, micro, ("\n\n",)).split("\n")
    assert shown[:3] == ["the first prompt, its lines between bars:", "  |Q: 2 + \\frac{1}{2} = {x}?  |", "  ||"]
    ids = table.tokens_Q[0].tolist()
    last = [f"{i} {micro.tokenizer.decode([i])!r}" for i in ids[-8:]]
    assert shown[3] == f"  the last of its {len(ids)} tokens: {', '.join(last)}" and last[-1].endswith("'\\n'")
    assert shown[4:] == ["  a response ends with <eos> or \\n\\n"]


def test_an_end_that_the_tokenizer_has_no_name_of_is_shown_by_its_number(micro):
    policy = dataclasses.replace(micro, ends=frozenset([*micro.eos_ids, 10_000]))
    table = Prompts.from_rows([(0, "1 + 1", micro.encode_prompt("1 + 1", chat=False))])
    assert prompts.describe(table, policy, ()).endswith(" or token 10000")
