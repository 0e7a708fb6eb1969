"""The model card of a trained policy."""

import yaml

from hpc_saidpo.dpo.card import Facts, card

CONFIG = {
    "policy.path": "models/base", "pool.path": "a|b`\n# c.jsonl", "sampler.rule": "error", "dpo.beta": 0.1,
    "rollouts.k": 8, "rollouts.prompt.chat": False, "rollouts.prompt.question": "{question}\n", "pool.kind": None,
}  # fmt: skip


def test_the_card_names_the_origin_of_the_policy_and_no_text_can_break_it():
    text = card(Facts("my|run", 2, "runs/my/iter-001/policy/model", "abc", 1234, 900, CONFIG))
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"
    lines = body.splitlines()
    assert "# my/run, after round 3" in lines
    assert "| policy before this round, its reference | `runs/my/iter-001/policy/model (hash abc)` |" in lines
    assert "| preference pairs | `1,234 of 900 questions, sampled from that policy` |" in lines
    assert "| pool.path | `a/b'\\n# c.jsonl` |" in lines and "| rollouts.k | `8` |" in lines
    assert not [line for line in lines if line.startswith("# c") or "pool.kind" in line]
    assert "plain text `{question}\\n`" in body
    assert "the chat template of its tokenizer" in card(Facts("r", 0, "p", "h", 1, 1, {"rollouts.prompt.chat": True}))
