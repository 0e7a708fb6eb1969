"""Replies from a language model in this process: the rollout engine, greedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import settings
from ..errors import RunError, shown
from ..policy.model import Policy, max_positions
from ..rollouts.engine.engine import generate
from ..settings.rollouts import Sampling
from .asking import Messages


@dataclass(frozen=True)
class Local:
    """A Hugging Face instruct model.

    Attributes:
        fingerprint: hash of its weights.
        load: loads the model; called at the first request.
        engine: settings of the decoding.
    """

    fingerprint: str
    load: Callable[[], Policy]
    engine: settings.Engine
    max_new_tokens: int

    @property
    def identity(self) -> str:
        return repr(("model", self.fingerprint, self.max_new_tokens))

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """Return a reply to each conversation; "" to one that is longer than the model's context.

        Raises:
            RunError: the model's tokenizer has no chat template; or as `generate`.
        """
        if not conversations:
            return []
        policy = self.load()
        if not policy.tokenizer.chat_template:
            raise RunError(
                f"tags.model={shown(policy.path)}: its tokenizer has no chat template: use an instruct model"
            )
        policy.model.eval()
        prompts = [policy.encode_prompt(policy.chat_template(c), chat=True) for c in conversations]
        fit = [i for i, ids in enumerate(prompts) if len(ids) + self.max_new_tokens <= max_positions(policy)]
        greedy = Sampling(0.0, 1.0, self.max_new_tokens)
        responses = generate(policy, [prompts[i] for i in fit], [[0]] * len(fit), greedy, self.engine)
        replies = dict(zip(fit, (of_prompt[0].text for of_prompt in responses), strict=True))
        return [replies.get(i, "") for i in range(len(prompts))]
