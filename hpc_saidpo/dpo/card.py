"""The model card of a trained policy: README.md in its folder, as the Hugging Face Hub and its tools read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..errors import visible

# Settings of the run that the card names, where the run has them.
KEYS = (
    "policy.path", "pool.kind", "pool.path", "pool.verifier", "clusters.n", "probe.fraction", "sampler.rule",
    "sampler.alpha", "sampler.n_questions", "rollouts.k", "rollouts.temperature", "rollouts.max_new_tokens",
    "pairs.per_question", "pairs.share", "dpo.loss", "dpo.beta", "dpo.lr", "dpo.epochs", "dpo.batch_pairs", "run.seed",
)  # fmt: skip
_HEAD = """\
---
library_name: transformers
pipeline_tag: text-generation
tags:
- dpo
- sai-dpo
---
"""


@dataclass(frozen=True)
class Facts:
    """The origin of a trained policy.

    Attributes:
        run: name of the run.
        reference: folder of the policy before the round, which is also the reference; and its hash.
        n_pairs, n_questions: preference pairs of the round, and the questions that they are of.
        config: the run's configuration, key -> value.
    """

    run: str
    iteration: int
    reference: str
    reference_hash: str
    n_pairs: int
    n_questions: int
    config: Mapping[str, Any]


def card(facts: Facts) -> str:
    """Return the model card as Markdown. It depends on the run alone, not on time, host or number of ranks."""
    rows = {
        "run, iteration": f"{facts.run}, {facts.iteration}",
        "policy before this round, its reference": f"{facts.reference} (hash {facts.reference_hash})",
        "preference pairs": f"{facts.n_pairs:,} of {facts.n_questions:,} questions, sampled from that policy",
        **{key: _text(facts.config[key]) for key in KEYS if facts.config.get(key) is not None},
    }
    table = "\n".join(f"| {name} | {_code(value)} |" for name, value in rows.items())
    chat = facts.config.get("rollouts.prompt.chat")
    question = _code(_text(facts.config.get("rollouts.prompt.question")))
    prompt = "the chat template of its tokenizer" if chat else f"the plain text {question}"
    return f"""{_HEAD}
# {_line(facts.run)}, after round {facts.iteration + 1}

A causal language model, trained by direct preference optimization on pairs of its own responses: self-aware iterative
DPO with dynamic sampling (SAI-DPO, arXiv:2505.16176), by hpc_saidpo {__version__}.

| | |
| --- | --- |
{table}

Questions were asked in the form of {prompt}. Responses were judged by the verifier alone, so the model is no better
than it was in what the verifier does not see: tone, safety, other subjects.

Its accuracy, before and after, is in `report.html` and `metrics.jsonl` of the run folder, every setting in
`config.yaml`. The licences of the first policy and of the questions apply.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS FOLDER")
model = AutoModelForCausalLM.from_pretrained("THIS FOLDER")
```
"""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _line(text: str) -> str:
    return visible(text, kept="").replace("`", "'").replace("|", "/")


def _code(text: str) -> str:
    """A text from outside as code of one line: it can be no other Markdown."""
    return f"`{_line(text)}`"
