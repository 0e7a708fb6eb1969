"""The generated questions are right, distinct and in the ranges they claim; the shipped micro model fits them."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hpc_saidpo.pool import arithmetic

MICRO_LLAMA = Path(arithmetic.__file__).parents[1] / "data" / "micro_llama"
CELLS = [(topic, span) for topic in arithmetic.TOPICS for span in arithmetic.RANGES]


def numbers(text):
    return [int(digits) for digits in re.findall(r"\d+", text)]


# Each topic's answer from the words of the question alone, by another road than the generator's.
ANSWERS = {
    "addition": lambda text: sum(numbers(text)),
    "subtraction": lambda text: numbers(text)[0] - numbers(text)[1],
    "multiplication": lambda text: int(np.prod(numbers(text), dtype=object)),
    "chain": lambda text: sum(int(term) for term in re.findall(r"[+-]?\d+", text)),
    "doubling": lambda text: sum(numbers(text)) + numbers(text)[0],
    "remainder": lambda text: divmod(*numbers(text))[1],
    "gap": lambda text: sorted(numbers(text))[-1] - sorted(numbers(text))[0],
    "sequence": lambda text: 2 * numbers(text)[-1] - numbers(text)[-2],
}


WORDING = {
    "addition": r"\d+\+\d+=\?",
    "subtraction": r"\d+-\d+=\?",
    "multiplication": r"\d+\*\d+=\?",
    "chain": r"\d+\+\d+-\d+=\?",
    "doubling": r"double \d+ add \d+",
    "remainder": r"\d+ mod \d+",
    "gap": r"gap \d+ \d+",
    "sequence": r"next: \d+ \d+ \d+",
}


@pytest.mark.parametrize(("topic", "span"), CELLS)
def test_answers_and_work_are_right(topic, span):
    rng = np.random.default_rng(5)
    for _ in range(300):
        p = arithmetic.problem(topic, span, rng)
        assert (p.topic, p.span) == (topic, span)
        assert p.answer == str(ANSWERS[topic](p.text)) and not p.answer.startswith("-")
        *steps, last = p.solution.split("\n")
        assert last == f"#### {p.answer}" and len(steps) <= 1
        for step in steps:  # every work step is a sum or difference that already equals the answer
            assert re.fullmatch(r"\d+[+-]\d+", step)
            assert sum(int(term) for term in re.findall(r"[+-]?\d+", step)) == int(p.answer)
        assert re.fullmatch(WORDING[topic], p.text)


@pytest.mark.parametrize("topic", arithmetic.TOPICS)
def test_ranges_differ_in_the_size_of_their_numbers(topic):
    rng = np.random.default_rng(6)
    found = {span: [arithmetic.problem(topic, span, rng) for _ in range(300)] for span in arithmetic.RANGES}
    assert max(n for p in found["small"] for n in numbers(p.text)) <= 21
    assert 22 <= max(n for p in found["trained"] for n in numbers(p.text)) <= 200
    assert min(n for p in found["hard"] for n in numbers(p.text)) >= 1000


@pytest.mark.parametrize("topic", arithmetic.TOPICS)
def test_operands_make_distinct_texts_and_ranges_do_not_overlap(topic):
    """`count` trusts that no two choices of operands share a text."""
    cell = arithmetic.TOPICS[topic]
    spans = [span for span in arithmetic.RANGES if cell.size(span) <= arithmetic.ENUMERABLE]
    texts = [p.text for span in spans for p in arithmetic._candidates(topic, span, np.random.default_rng(0))]
    assert len(set(texts)) == len(texts) == sum(cell.size(span) for span in spans)
    assert cell.size("small") < cell.size("trained") < cell.size("hard")


def test_enough_questions():
    assert arithmetic.count("trained") >= 3_000
    assert arithmetic.count("small") >= 400
    assert arithmetic.count("hard") >= 10**9


@pytest.mark.parametrize("n", [0, 1, 7, 400])
def test_shares_topics_and_distinctness(n):
    shares = {"hard": 0.7, "trained": 0.15, "small": 0.15}
    found = arithmetic.problems(shares, n, seed=3)
    assert len(found) == n == len({p.text for p in found})
    spans = Counter(p.span for p in found)
    assert all(abs(spans[span] - n * share) < 1 for span, share in shares.items())
    for span in shares:
        cells = [sum((p.topic, p.span) == (topic, span) for p in found) for topic in arithmetic.TOPICS]
        assert max(cells) - min(cells) <= 1


def test_questions_are_shuffled():
    found = arithmetic.problems({"hard": 1, "small": 1}, 200, seed=0)
    assert 30 < sum(p.span == "hard" for p in found[:100]) < 70


def test_the_seed_decides():
    first, again = (arithmetic.problems({"trained": 1, "small": 1}, 60, seed=8) for _ in range(2))
    assert first == again == arithmetic.problems({"small": 2, "trained": 2}, 60, seed=8)
    assert first != arithmetic.problems({"trained": 1, "small": 1}, 60, seed=9)


def test_exclude_and_held_out():
    first = arithmetic.problems({"trained": 1}, 200, seed=1)
    texts = {p.text for p in first}
    second = arithmetic.problems({"trained": 1}, 200, seed=1, exclude=texts)
    assert not texts & {p.text for p in second}
    turned = {
        "+".join(reversed(t.removesuffix("=?").split("+"))) + "=?" for t in texts if re.fullmatch(r"\d+\+\d+=\?", t)
    }
    assert turned - texts and not turned & {p.text for p in second}
    assert 20 <= sum(arithmetic.is_held_out(p.text) for p in first) <= 60
    for value in (True, False):
        kept = arithmetic.problems({"trained": 1}, 200, seed=1, held_out=value)
        assert {arithmetic.is_held_out(p.text) for p in kept} == {value}


def test_the_held_out_rule_never_changes():
    """The shipped weights were trained by it."""
    assert arithmetic.is_held_out("12+34=?") is True
    assert arithmetic.is_held_out("47+25=?") is False


def test_other_topics_take_over_until_the_range_is_used_up():
    total = arithmetic.count("small")
    everything = arithmetic.problems({"small": 1}, total, seed=0)
    assert len({p.text for p in everything}) == total
    with pytest.raises(ValueError, match="small"):
        arithmetic.problems({"small": 1}, total + 1, seed=0)
    with pytest.raises(ValueError, match="small"):
        arithmetic.problems({"small": 1, "hard": 1}, 2, seed=0, exclude={p.text for p in everything})
    left = {p.text for p in everything if p.topic == "sequence"}
    some = arithmetic.problems({"small": 1}, 20, seed=0, exclude={p.text for p in everything} - left)
    assert {p.text for p in some} <= left


@pytest.mark.parametrize(
    "shares",
    [{}, {"small": 0}, {"small": -1, "hard": 2}, {"easy": 1}, {"small": float("nan")}, {"small": float("inf")}],
)
def test_bad_shares(shares):
    with pytest.raises(ValueError):
        arithmetic.problems(shares, 3, seed=0)


def test_bad_names():
    with pytest.raises(ValueError, match="topic"):
        arithmetic.problem("geometry", "small", np.random.default_rng(0))
    with pytest.raises(ValueError, match="range"):
        arithmetic.problem("addition", "easy", np.random.default_rng(0))


@pytest.fixture(scope="module")
def micro():
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(MICRO_LLAMA)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(MICRO_LLAMA)


def test_micro_llama_is_small():
    assert sum(path.stat().st_size for path in MICRO_LLAMA.iterdir()) < 1_000_000


def test_characters_round_trip(micro, tmp_path):
    _, tokenizer = micro
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    text = "".join(map(chr, range(32, 127))) + "\n  two  blanks \n\n#### 1205 , . ' n't\n"
    for each in (tokenizer, again):
        ids = each.encode(text, add_special_tokens=False)
        assert len(ids) == len(text) and each.unk_token_id not in ids
        assert each.decode(ids) == text and each.encode(text) == ids
        assert each.encode("é1", add_special_tokens=False) == [each.unk_token_id, *each.encode("1")]
        assert len({each.pad_token_id, each.eos_token_id, each.unk_token_id}) == 3
        assert each.chat_template is None and each.model_max_length == 256


def solved(micro, found):
    """Share of greedy responses that end in the right answer."""
    import torch

    model, tokenizer = micro
    batch = tokenizer([f"{p.text}\n" for p in found], return_tensors="pt", padding=True, padding_side="left")
    with torch.no_grad():
        ids = model.generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=48, do_sample=False
        )
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return np.mean([t.split("\n")[-1] == f"#### {p.answer}" for t, p in zip(texts, found, strict=True)])


def test_micro_llama_solves_small_often_trained_sometimes_hard_never(micro):
    small, trained, hard = (
        solved(micro, arithmetic.problems({span: 1}, 64, seed=2, held_out=held_out))
        for span, held_out in (("small", None), ("trained", True), ("hard", None))
    )
    assert small > 0.8 and 0.3 < trained < 0.75 and hard < 0.05
