#!/usr/bin/env python3
"""The dynamic sampler in another training loop: TRL's GRPOTrainer draws its questions by it.

    tools/example_grpo.py
    tools/example_grpo.py --rule uniform --steps 40

Three calls connect the two: `draw` in a torch Sampler, `update` in the reward function, and `begin` after each batch.
The shipped micro model learns arithmetic on a CPU, 20 steps in seconds. A GRPO group whose rewards are all equal has no
gradient, so the figure to watch is the share of groups with both correct and wrong responses. Needs trl (pip install
'hpc_saidpo[test]'). On several processes, gather the counts before `update`: then every sampler draws the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import interpreter

interpreter.require("trl", "datasets")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from hpc_saidpo import settings
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.pool import arithmetic
from hpc_saidpo.records import CORRECT, UNGRADABLE
from hpc_saidpo.sampler.sampler import Sampler

MODEL = interpreter.HOME / "hpc_saidpo" / "data" / "micro_llama"
QUESTIONS, GROUP = 8, 8  # of a step, and responses to each


class Drawn(torch.utils.data.Sampler):
    """Batches of drawn questions. Each question is repeated, once for each of its responses.

    A batch is drawn when the data loader requests it. Data loaders request one batch ahead, so the draw depends on the
    rewards of all earlier batches but the last.
    """

    def __init__(self, sampler: Sampler, n_batches: int):
        self.sampler, self.n_batches = sampler, n_batches

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.n_batches):
            for question in self.sampler.draw().tolist():
                yield from [question] * GROUP
            self.sampler.begin()

    def __len__(self) -> int:
        return self.n_batches * QUESTIONS * GROUP


class Trainer(GRPOTrainer):
    """GRPO on the questions that a dynamic sampler draws."""

    def __init__(self, sampler: Sampler, **arguments):
        self.dynamic = sampler
        super().__init__(**arguments)

    def _get_train_sampler(self, dataset=None):
        return Drawn(self.dynamic, self.args.max_steps + 1)  # the data loader looks ahead


class Reward:
    """1 for a correct response, 0 for a wrong one. It also updates the sampler.

    Attributes:
        usable: the share of questions with both, of each step.
    """

    __name__ = "correct"  # its name in TRL's log

    def __init__(self, sampler: Sampler, grader: Grader):
        self.sampler, self.grader = sampler, grader
        self.usable: list[float] = []

    def __call__(
        self, completions: Sequence[str], answer: Sequence[str], question: Sequence[int], **_: object
    ) -> list[float]:
        verdict_R = np.array([self.grader.grade(c, a).verdict for c, a in zip(completions, answer, strict=True)])
        self.sampler.update(question, verdict_R == CORRECT, verdict_R != UNGRADABLE)
        n_correct_Q = (verdict_R == CORRECT).reshape(-1, GROUP).sum(axis=1)
        self.usable.append(float(((n_correct_Q > 0) & (n_correct_Q < GROUP)).mean()))
        return (verdict_R == CORRECT).astype(float).tolist()


def train(rule: str, steps: int, seed: int) -> dict:
    """Train. Returns the figures."""
    torch.set_num_threads(1)  # more threads do not help so small a model
    problems = arithmetic.problems({"hard": 0.6, "trained": 0.25, "small": 0.15}, 2400, seed, held_out=False)
    kinds = sorted({(p.topic, p.span) for p in problems})
    # The maker of these questions labels them; other pools are clustered by hpc_saidpo.clusters.
    cluster_N = [kinds.index((p.topic, p.span)) for p in problems]
    dataset = Dataset.from_dict({
        "prompt": [p.text + "\n" for p in problems],
        "answer": [p.answer for p in problems],
        "question": list(range(len(problems))),
    })  # fmt: skip
    # A step is an iteration here: evidence fades by a tenth with each.
    sampler = Sampler(cluster_N, settings.Sampler(rule=rule, history=0.9, n_questions=QUESTIONS), seed, k=GROUP)
    with Grader() as grader, tempfile.TemporaryDirectory() as folder:
        reward = Reward(sampler, grader)
        trainer = Trainer(
            sampler,
            model=AutoModelForCausalLM.from_pretrained(MODEL, trust_remote_code=False),
            processing_class=AutoTokenizer.from_pretrained(MODEL, trust_remote_code=False),
            reward_funcs=reward,
            train_dataset=dataset,
            args=GRPOConfig(
                output_dir=folder, max_steps=steps, seed=seed, learning_rate=1e-4, num_generations=GROUP,
                per_device_train_batch_size=QUESTIONS * GROUP, steps_per_generation=1, max_completion_length=24,
                use_cpu=True, bf16=False, gradient_checkpointing=False,
                save_strategy="no", report_to=[], logging_steps=steps, disable_tqdm=True,
            ),
        )  # fmt: skip
        trainer.train()
    quarter = max(1, steps // 4)
    return {
        "rule": rule,
        "steps": trainer.state.global_step,
        "groups_graded": len(reward.usable) * QUESTIONS,
        "usable_share_first_quarter": float(np.mean(reward.usable[:quarter])),
        "usable_share_last_quarter": float(np.mean(reward.usable[-quarter:])),
        "cluster_weight": {"/".join(kinds[c]): round(float(w), 3) for c, w in enumerate(sampler.cluster_weights())},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="error", help="as sampler.rule")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    figures = train(arguments.rule, arguments.steps, arguments.seed)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(
        f"{figures['steps']} steps by rule {figures['rule']}, {figures['groups_graded']} groups graded; with correct "
        f"and wrong responses: {figures['usable_share_first_quarter']:.0%} in the first quarter of the steps, "
        f"{figures['usable_share_last_quarter']:.0%} in the last"
    )
    heaviest = sorted(figures["cluster_weight"].items(), key=lambda item: -item[1])
    print("heaviest clusters:", ", ".join(f"{name} {weight:.2f}" for name, weight in heaviest[:5]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
