import pytest
import torch
from architectures import ARCHITECTURES
from transformers import AutoModelForCausalLM

from hpc_saidpo.logps import response_logps, shares_prompts

PROMPTS = [[5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15]]
RESPONSES = [([20, 21, 22], [23]), ([24, 25], [24, 26, 27, 28]), ([29], [30])]


def one_by_one(model, prompts, responses):
    """The definition: a row per response, no padding, every logit."""

    def logp(prompt, response):
        logps = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        return sum(logps[len(prompt) + i - 1, token] for i, token in enumerate(response))

    return torch.stack([torch.stack([logp(p, r) for r in own]) for p, own in zip(prompts, responses, strict=True)])


def random_model(name, attention="sdpa"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(ARCHITECTURES[name], attn_implementation=attention).eval()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_values_and_gradients_are_those_of_one_row_at_a_time(name, attention):
    model = random_model(name, attention)
    assert shares_prompts(model) == ("sliding" not in name)
    ours, expected = response_logps(model, PROMPTS, RESPONSES, 0), one_by_one(model, PROMPTS, RESPONSES)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    weight = torch.tensor([[1.0, -1.0], [0.5, -2.0], [3.0, 1.0]])
    parameters = [p for p in model.parameters() if p.requires_grad]
    got = torch.autograd.grad((ours * weight).sum(), parameters, allow_unused=True)
    wanted = torch.autograd.grad((expected * weight).sum(), parameters, allow_unused=True)
    for g, w in zip(got, wanted, strict=True):
        if w is not None:
            torch.testing.assert_close(g, w, rtol=1e-4, atol=1e-5)


def test_only_the_positions_around_responses_reach_the_head(micro):
    seen = []
    hook = micro.model.get_output_embeddings().register_forward_hook(lambda m, args, out: seen.append(out.shape))
    response_logps(micro.model, [[5] * 40, [6] * 30], [([7, 8], [9]), ([9], [9])], 0)
    hook.remove()
    assert [tuple(shape[:2]) for shape in seen] == [(2, 4)]  # 3 response tokens and the prompt's end, of 43


def test_responses_behind_one_prompt_do_not_see_each_other(micro):
    first = response_logps(micro.model, [[5, 6]], [([7, 8], [9])], 0)
    second = response_logps(micro.model, [[5, 6]], [([70, 80], [9])], 0)
    torch.testing.assert_close(first[0, 1], second[0, 1])
    assert first[0, 0] != second[0, 0]
