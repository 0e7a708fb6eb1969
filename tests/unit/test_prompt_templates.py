"""Unusual chat templates and tokenizers: noticed on the first prompt, named with the key to set."""

from __future__ import annotations

import copy
import dataclasses
from datetime import datetime

import numpy as np
import pytest
from support.collecting import BARE, QUESTIONS, SAMPLING
from tokenizers import Regex
from tokenizers.normalizers import Replace
from tokenizers.processors import TemplateProcessing

from hpc_saidpo import settings
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.records import Prompts, Question
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.request import Request, load_rollouts
from hpc_saidpo.rollouts.stage import collect_rollouts
from hpc_saidpo.store.stage import Stage

QUESTION = Question(id="q", text=" 2 + 2 = ? ", answer="4")
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{% endfor %}"
PARTS = "{% for m in messages %}<{{ m.role }}>{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def with_template(micro: Policy, template: str | dict[str, str]) -> Policy:
    tokenizer = copy.deepcopy(micro.tokenizer)
    tokenizer.chat_template = template
    return dataclasses.replace(micro, tokenizer=tokenizer)


def rendered(policy: Policy, now: datetime | None = None, **config) -> str:
    return Renderer([QUESTION], {}, policy, settings.Prompt(**config), now).text(0)


def test_a_template_of_texts_is_used_as_it_is(micro):
    assert rendered(with_template(micro, TURNS), system="be brief") == "<system>be brief<user>2 + 2 = ?"


def test_a_template_of_parts_gets_parts(micro):
    assert rendered(with_template(micro, PARTS), system="be brief") == "<system>be brief<user> 2 + 2 = ? "


def test_a_template_that_refuses_a_system_turn_names_the_key(micro):
    policy = with_template(micro, NO_SYSTEM + TURNS)
    with pytest.raises(RunError, match=r"accepts no system turn \(.*System role not supported.*prompt\.system=''"):
        rendered(policy, system="be brief")
    assert rendered(policy) == "<user>2 + 2 = ?"


@pytest.mark.parametrize(
    "template, says",
    [
        ("A:", "leaves out the question: repair it"),
        ("{% for m in messages %}{{ m.content[:4] }}{% endfor %}", "leaves out the question"),
        ("{% if %}", r"fails \(TemplateSyntaxError: "),
        ("{{ 1 + messages[0].role }}", r"fails \(TypeError: .*rollouts/prompt=plain"),
        (
            {"rag": TURNS, "tool_use": TURNS},
            r"several chat templates.*chat_template: NAME\}' with .*rag, tool_use",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_named_before_a_rollout(micro, folder, template, says):
    policy = with_template(micro, template)
    stage, plan = Stage(folder), settings.Rollouts(prompt=settings.Prompt())
    request = Request(Renderer(QUESTIONS, {}, policy, plan.prompt), np.arange(3), 2, SAMPLING, (0, 0, "probe"))
    with pytest.raises(RunError, match=says):
        collect_rollouts(stage, request, plan, World())
    assert list(folder.iterdir()) == []


def test_a_prompt_with_a_token_without_an_embedding_is_refused(micro, folder):
    tokenizer = copy.deepcopy(micro.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    plan = settings.Rollouts(prompt=settings.Prompt(chat=False, system="<extra>"))
    renderer = Renderer(QUESTIONS, {}, dataclasses.replace(micro, tokenizer=tokenizer), plan.prompt)
    with pytest.raises(RunError, match=r"its prompt has the token '<extra>', and the model .* has no embedding of it"):
        collect_rollouts(Stage(folder), Request(renderer, np.arange(3), 2, SAMPLING, (0, 0, "probe")), plan, World())
    assert list(folder.iterdir()) == []


def test_a_prompt_without_a_token_is_refused(micro, folder):
    tokenizer = copy.deepcopy(micro.tokenizer)
    tokenizer.backend_tokenizer.normalizer = Replace(Regex("."), "")  # as of letters that a vocabulary lacks
    plan = settings.Rollouts(prompt=settings.Prompt(chat=False))
    renderer = Renderer(QUESTIONS, {}, dataclasses.replace(micro, tokenizer=tokenizer), plan.prompt)
    with pytest.raises(RunError, match=r"question '.*': its prompt has no token"):
        collect_rollouts(Stage(folder), Request(renderer, np.arange(3), 2, SAMPLING, (0, 0, "probe")), plan, World())


def test_arguments_reach_the_template(micro):
    named = with_template(micro, {"rag": "rag" + TURNS, "tool_use": TURNS})
    assert rendered(named, template_args={"chat_template": "rag"}).startswith("rag<user>")
    policy = with_template(micro, TURNS + "{% if not enable_thinking | default(true) %}<think></think>{% endif %}")
    assert rendered(policy).endswith("?") and rendered(policy, template_args={"enable_thinking": False}).endswith("k>")
    with pytest.raises(ValueError, match="template_args must not contain tokenize"):
        settings.Prompt(template_args={"tokenize": True})


def test_a_template_sees_the_date_of_the_run(micro):
    policy = with_template(
        micro, "\n  {% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + TURNS
    )
    leap = datetime(2024, 2, 9, 23, 59)
    assert rendered(policy, leap) == "\n09 Feb 2024<user>2 + 2 = ?"  # blanks as without a fixed time
    every = with_template(micro, "{{ strftime_now('%A, %-d/%m/%y %I:%M %p, 100 %% %j') }}" + TURNS)
    assert rendered(every, leap).startswith(leap.strftime("%A, %-d/%m/%y %I:%M %p, 100 %% %j") + "<user>")
    before, shown, after = datetime.now(), rendered(policy)[1:12], datetime.now()
    assert shown in (before.strftime("%d %b %Y"), after.strftime("%d %b %Y"))


def test_a_stage_that_resumes_on_another_day_keeps_its_prompts(micro, folder):
    policy = with_template(micro, "{{ strftime_now('%d') }}+{% for m in messages %}{{ m.content }}{% endfor %}")
    plan = settings.Rollouts(prompt=settings.Prompt(question="{question}\n"), chunk_questions=3)

    def collected(path, day):
        stage = Stage(path)
        stage.prepare()
        renderer = Renderer(QUESTIONS, {}, policy, plan.prompt, datetime(2024, 1, day))
        collect_rollouts(stage, Request(renderer, np.arange(6), 2, SAMPLING, (0, 0, "probe")), plan, World())
        return load_rollouts(stage)

    first, other = collected(folder / "a", 11), collected(folder / "b", 22)
    assert list(first.text_R) != list(other.text_R)
    for shard in (folder / "a").glob("shard*"):
        shard.unlink()
    again = collected(folder / "a", 22)
    assert [ids.tolist() for ids in again.tokens_R] == [ids.tolist() for ids in first.tokens_R]
    prompts = Stage(folder / "a").read("prompts", Prompts)
    assert prompts.text_Q[0] == "11+1+1=?\n" and prompts.question_Q.tolist() == list(range(6))


def test_a_tokenizer_that_ends_every_text_does_not_end_a_prompt(micro, caplog):
    tokenizer = copy.deepcopy(micro.tokenizer)
    eos = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {eos}", special_tokens=[(eos, tokenizer.eos_token_id)]
    )
    ending = dataclasses.replace(micro, tokenizer=tokenizer)
    assert tokenizer("1+1=?\n")["input_ids"][-1] == tokenizer.eos_token_id
    plain = Renderer(QUESTIONS, {}, micro, BARE).table(range(5))
    assert plain.equals(Renderer(QUESTIONS, {}, ending, BARE).table(range(5)))
    assert ending.encode_prompt(f"1{eos}", False) == micro.encode_prompt(f"1{eos}", False)  # the user's words stay
