"""A language model in this process answers: the rollout engine, greedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import settings
from ..errors import RunError
from ..policy.model import Policy, longest
from ..rollouts.engine.engine import generate
from ..settings.rollouts import Sampling
from .asking import Messages


@dataclass(frozen=True)
class Local:
    """A Hugging Face instruct model.

    Attributes:
        fingerprint: hash of its weights.
        load: gives the model; called when there is something to answer.
        engine: how it decodes.
    """

    fingerprint: str
    load: Callable[[], Policy]
    engine: settings.Engine
    max_new_tokens: int

    @property
    def identity(self) -> str:
        return repr(("model", self.fingerprint, self.max_new_tokens))

    def answer(self, conversations: Sequence[Messages]) -> list[str]:
        """A reply to each conversation; "" to one that is longer than the model was made for.

        Raises:
            RunError: the model's tokenizer has no chat template; or as `generate` does.
        """
        if not conversations:
            return []
        policy = self.load()
        if not policy.tokenizer.chat_template:
            raise RunError(f"tags.model={policy.path}: its tokenizer has no chat template: give an instruct model")
        policy.model.eval()
        prompts = [policy.encode_prompt(policy.chat_template(c), chat=True) for c in conversations]
        fit = [i for i, ids in enumerate(prompts) if len(ids) + self.max_new_tokens <= longest(policy)]
        how = Sampling(0.0, 1.0, self.max_new_tokens)
        made = generate(policy, [prompts[i] for i in fit], [[0]] * len(fit), how, self.engine)
        replies = dict(zip(fit, (own[0].text for own in made), strict=True))
        return [replies.get(i, "") for i in range(len(prompts))]
