#!/usr/bin/env python3
"""Train the micro Llama that ships in hpc_saidpo/data/micro_llama: a little over two CPU-minutes on one thread.

It learns arithmetic of the `trained` and `small` ranges by supervised fine-tuning. Many of the solutions it learns from
are wrong in the same way (see SLIP), and so it is right about half of the time: preference learning has a habit to
correct, on questions it has never seen too. Questions of the trained range for which `arithmetic.is_held_out` is true
are never trained on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import interpreter

interpreter.require()

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)  # fmt: skip

from hpc_saidpo.pool import arithmetic

BATCH = 96
LEARNING_RATE = 4e-3
# Share of the small range in the first and in the last batch. It grows, so that these few questions end up known by
# heart, while the trained range is still learnt by rule.
SMALL_SHARES = (0.15, 0.6)
# Share of the trained range's solutions whose answer is SLIP too much, in the first and in the last topic, and evenly
# between. The model learns to slip beside the rule. Without slips its errors have nothing in common, and pairs improve
# little beyond the questions that they are about (measured: no gain on held-out questions).
SLIP_SHARES = (0.3, 0.6)
SLIP = 10
MAX_NEW_TOKENS = 48
SAMPLES = 8


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character and newline: BPE without merges, the rest is <unk>."""
    special = ["<pad>", "<eos>", "<unk>"]
    characters = ["\n", *map(chr, range(32, 127))]
    vocab = {token: i for i, token in enumerate(special + characters)}
    core = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", fuse_unk=False))
    core.decoder = decoders.Fuse()  # without it decode() puts blanks between characters
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=256,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A random Llama of about 113k parameters."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def training_problems(seed: int) -> dict[str, list[arithmetic.Problem]]:
    """What the model may see: the trained range without its held-out questions, and the whole small range."""
    ranges = {span: arithmetic.problems({span: 1}, arithmetic.count(span), seed) for span in ("trained", "small")}
    ranges["trained"] = [p for p in ranges["trained"] if not arithmetic.is_held_out(p.text)]
    return ranges


def slipped(problem: arithmetic.Problem) -> arithmetic.Problem:
    """The problem with a wrong solution: the work is right, the answer is not."""
    answer = str(int(problem.answer) + SLIP)
    return replace(problem, solution=problem.solution.removesuffix(problem.answer) + answer, answer=answer)


def encode(problem: arithmetic.Problem, tokenizer: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of prompt, solution and eos; labels are -100 over the prompt."""
    prompt = tokenizer.encode(f"{problem.text}\n", add_special_tokens=False)
    response = [*tokenizer.encode(problem.solution, add_special_tokens=False), tokenizer.eos_token_id]
    return torch.tensor(prompt + response), torch.tensor([-100] * len(prompt) + response)


def make(
    steps: int, seed: int, slips: tuple[float, float] = SLIP_SHARES
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A trained model and its tokenizer; the same for the same arguments, on one thread.

    Args:
        slips: as SLIP_SHARES; (0, 0) learns from correct solutions only.
    """
    torch.set_num_threads(1)  # sums in a fixed order
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    train(model, tokenizer, steps, seed, slips)
    return model, tokenizer


def train(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, seed: int, slips: tuple[float, float]
) -> None:
    """Supervised fine-tuning; every topic is equally frequent, however few questions it has."""
    rng = np.random.default_rng(seed)
    topics = list(arithmetic.TOPICS)
    slip_shares = dict(zip(topics, np.linspace(*slips, len(topics)), strict=True))
    cells: dict[tuple[str, str], list] = {}
    for span, problems in training_problems(seed).items():
        for problem in problems:
            is_slip = span == "trained" and rng.random() < slip_shares[problem.topic]
            row = encode(slipped(problem) if is_slip else problem, tokenizer)
            cells.setdefault((span, problem.topic), []).append(row)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 50, 1 - step / steps))
    model.train()
    for step in range(steps):
        small_share = np.interp(step, (0, steps), SMALL_SHARES)
        spans = np.where(rng.random(BATCH) < small_share, "small", "trained")
        drawn = [cells[span, topics[rng.integers(len(topics))]] for span in spans]
        rows = [cell[rng.integers(len(cell))] for cell in drawn]
        ids = pad_sequence([row[0] for row in rows], batch_first=True, padding_value=tokenizer.pad_token_id)
        labels = pad_sequence([row[1] for row in rows], batch_first=True, padding_value=-100)
        loss = model(input_ids=ids, labels=labels).loss  # padding on the right needs no mask in a causal model
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 250 == 0 or step == steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def grade(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[arithmetic.Problem],
    samples: int = 0,
) -> np.ndarray:
    """Whether the last line is the right answer, [questions, samples] at temperature 1, [questions, 1] greedy if 0."""
    model.eval()
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "num_return_sequences": samples}
    correct = []
    for start in range(0, len(problems), 100):
        part = problems[start : start + 100]
        batch = tokenizer([f"{p.text}\n" for p in part], return_tensors="pt", padding=True, padding_side="left")
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            **(sampling if samples else {"do_sample": False}),
        )
        texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        answers = [p.answer for p in part for _ in range(samples or 1)]
        correct += [text.split("\n")[-1] == f"#### {answer}" for text, answer in zip(texts, answers, strict=True)]
    return np.array(correct).reshape(len(problems), -1)


def report(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, n: int, seed: int) -> None:
    """Print accuracy and pass@8 bands of each range; of the trained range also for questions that were trained on."""
    torch.manual_seed(seed)
    print(f"{'range':18} {'n':>5} {'greedy':>7} {'T=1':>6} {'0 of 8':>7} {'between':>8} {'8 of 8':>7}")
    for span, held_out in (("trained", True), ("trained", False), ("small", None), ("hard", None)):
        count = min(n, arithmetic.count(span))
        problems = arithmetic.problems({span: 1}, count, seed + 1, held_out=held_out)
        greedy = grade(model, tokenizer, problems)[:, 0]
        rate = grade(model, tokenizer, problems, SAMPLES).mean(axis=1)
        zero, one = (rate == 0).mean(), (rate == 1).mean()
        name = span + {True: ", held out", False: ", seen", None: ""}[held_out]
        print(
            f"{name:18} {count:5} {greedy.mean():7.3f} {rate.mean():6.3f} {zero:7.3f} {1 - zero - one:8.3f} {one:7.3f}"
        )
        for topic in arithmetic.TOPICS:
            of_topic = np.array([p.topic == topic for p in problems])
            print(f"  {topic:16} {of_topic.sum():5} {greedy[of_topic].mean():7.3f} {rate[of_topic].mean():6.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=interpreter.HOME / "hpc_saidpo" / "data" / "micro_llama")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--slips", type=float, nargs=2, default=SLIP_SHARES, metavar=("FIRST", "LAST"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-questions", type=int, default=400, help="per range, at the end")
    args = parser.parse_args()
    start_s = time.process_time()
    model, tokenizer = make(args.steps, args.seed, tuple(args.slips))
    print(f"trained {model.num_parameters()} parameters in {time.process_time() - start_s:.0f} CPU-seconds")
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    # Measured is the saved model.
    saved = (
        AutoModelForCausalLM.from_pretrained(args.out, trust_remote_code=False),
        AutoTokenizer.from_pretrained(args.out, trust_remote_code=False),
    )
    report(*saved, args.eval_questions, args.seed)


if __name__ == "__main__":
    main()
