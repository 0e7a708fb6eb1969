"""The losses against formulas written out by hand, finite differences, and TRL on the same model and pairs."""

import math

import pytest
import torch
from support.make import load_micro, make_pairs

from hpc_saidpo import settings
from hpc_saidpo.dpo.examples import tokenise
from hpc_saidpo.dpo.logps import ResponseLogps
from hpc_saidpo.dpo.loss import ipo_loss, log_ratio, loss_of, rewards, sigmoid_loss


def drawn(seed=0, n=5):
    """(policy, reference, lengths) of n pairs, in float64."""
    generator = torch.Generator().manual_seed(seed)
    policy_B2, reference_B2 = -20 * torch.rand(2, n, 2, generator=generator, dtype=torch.float64)
    return policy_B2, reference_B2, torch.randint(1, 30, (n, 2), generator=generator)


def by_hand(kind, policy, reference, lengths, beta, smoothing, nll):
    """One pair's loss, in floats: TRL's dpo_trainer for `kind`; cDPO's smoothing; iterative RPO's term."""
    chosen, rejected = policy[0] - reference[0], policy[1] - reference[1]
    averaged = chosen / lengths[0] - rejected / lengths[1]
    if kind == "ipo":
        loss = (averaged - 1 / (2 * beta)) ** 2
    else:
        margin = beta * (chosen - rejected if kind == "sigmoid" else averaged)
        loss = (1 - smoothing) * math.log1p(math.exp(-margin)) + smoothing * math.log1p(math.exp(margin))
    return loss - nll * policy[0] / lengths[0]


KINDS = [("sigmoid", 0.0), ("sigmoid", 0.1), ("sigmoid_norm", 0.0), ("sigmoid_norm", 0.1), ("ipo", 0.0)]


@pytest.mark.parametrize("nll", [0.0, 0.7])
@pytest.mark.parametrize("kind, smoothing", KINDS)
def test_every_loss_is_the_formula_and_its_gradient_the_slope(kind, smoothing, nll):
    config = settings.Dpo(loss=kind, beta=0.3, label_smoothing=smoothing, nll=nll)
    policy_B2, reference_B2, lengths_B2 = drawn()
    policy_B2.requires_grad_()
    loss_B = loss_of(policy_B2, reference_B2, lengths_B2, config)
    table = zip(policy_B2.tolist(), reference_B2.tolist(), lengths_B2.tolist(), strict=True)
    expected = [by_hand(kind, *row, 0.3, smoothing, nll) for row in table]
    assert loss_B.tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: loss_of(x, reference_B2, lengths_B2, config), policy_B2)


def test_the_losses_differ():
    rows = drawn()
    found = [loss_of(*rows, settings.Dpo(loss=k, label_smoothing=s)).sum().item() for k, s in KINDS]
    assert len({round(value, 6) for value in found}) == len(KINDS)


def test_loss_by_hand():
    # beta·[(-1 - -2) - (-5 - -4)] = 0.1·2 = 0.2: -log sigma(0.2) = log(1 + e^-0.2)
    policy_B2, reference_B2 = torch.tensor([[-1.0, -5.0]]), torch.tensor([[-2.0, -4.0]])
    loss = sigmoid_loss(log_ratio(policy_B2, reference_B2), beta=0.1)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.2)), abs=1e-7)
    assert rewards(policy_B2, reference_B2, 0.1)[0].tolist() == pytest.approx([0.1, -0.1])


def test_equal_policies_lose_log_2_and_ipo_its_target():
    h_B = torch.zeros(2)
    assert sigmoid_loss(h_B, beta=0.1, label_smoothing=0.2).tolist() == pytest.approx([math.log(2)] * 2)
    assert ipo_loss(h_B, beta=0.1).tolist() == [25.0, 25.0]
    assert ipo_loss(torch.tensor([5.0]), beta=0.1).item() == 0


def test_label_smoothing_is_the_expected_loss_under_flips():
    h_B = torch.randn(5, generator=torch.Generator().manual_seed(0))
    straight, flipped = sigmoid_loss(h_B, 0.3), sigmoid_loss(-h_B, 0.3)
    torch.testing.assert_close(sigmoid_loss(h_B, 0.3, label_smoothing=0.1), 0.9 * straight + 0.1 * flipped)


def test_gradient_is_the_papers():
    # Rafailov et al. 2023, section 4: d loss / d log pi(y_w) = -beta·sigma(-margin)
    policy_B2 = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    sigmoid_loss(log_ratio(policy_B2, torch.tensor([[-1.5, -2.5]])), beta=0.5).sum().backward()
    margin = 0.5 * ((-1.0 + 1.5) - (-2.0 + 2.5))
    slope = 0.5 / (1 + math.exp(margin))
    assert policy_B2.grad.flatten().tolist() == pytest.approx([-slope, slope])


def test_a_response_of_no_tokens_divides_by_nothing():
    policy_B2, reference_B2, _ = drawn(n=1)
    lengths_B2 = torch.tensor([[0, 3]])
    assert loss_of(policy_B2, reference_B2, lengths_B2, settings.Dpo(loss="sigmoid_norm", nll=1.0)).isfinite().all()


def test_label_smoothing_of_ipo_is_refused():
    with pytest.raises(ValueError, match="with loss=ipo, set 0"):
        settings.Dpo(loss="ipo", label_smoothing=0.1)


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm", "ipo"])
def test_loss_and_figures_equal_trls_on_the_same_model_and_pairs(tmp_path, kind):
    import datasets
    import trl

    policy, reference = load_micro(), load_micro()
    torch.manual_seed(0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.02 * torch.randn_like(p)
    pairs = make_pairs(8)
    # Of different lengths, so that what is divided by them can be told from what is not.
    longer = [text[:-1] if i % 2 else text + text[:5] for i, text in enumerate(pairs.rejected_B)]
    pairs.rejected_B[:] = longer
    rows = {"prompt": pairs.prompt_B, "chosen": pairs.chosen_B, "rejected": pairs.rejected_B}
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.2, loss_type=[kind], per_device_train_batch_size=8, report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=False, disable_dropout=True,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=policy.model, ref_model=reference.model, args=arguments, processing_class=policy.tokenizer,
        train_dataset=datasets.Dataset.from_dict(rows),
    )  # fmt: skip
    theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader()))).item()

    examples = tokenise(pairs, policy, chat=False, stop=())
    with torch.no_grad():
        ours, ours_ref = (examples.logps(ResponseLogps(p.model), range(8)) for p in (policy, reference))
    config = settings.Dpo(beta=0.2, loss=kind)
    loss = loss_of(ours.sum_BR, ours_ref.sum_BR, ours.n_tokens_BR, config).mean().item()
    untrained = loss_of(ours_ref.sum_BR, ours_ref.sum_BR, ours.n_tokens_BR, config).mean().item()
    assert abs(loss - untrained) > 1e-3  # the comparison is not of two trivial values
    assert loss == pytest.approx(theirs, rel=1e-5)
    reward_B2 = rewards(ours.sum_BR, ours_ref.sum_BR, 0.2)
    expected = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
    assert expected["rewards/chosen"] == pytest.approx(reward_B2[:, 0].mean().item(), rel=1e-4, abs=1e-5)
    assert expected["rewards/rejected"] == pytest.approx(reward_B2[:, 1].mean().item(), rel=1e-4, abs=1e-5)
    assert expected["logps/chosen"] == pytest.approx(ours.sum_BR[:, 0].mean().item(), rel=1e-5)
    assert expected["logps/rejected"] == pytest.approx(ours.sum_BR[:, 1].mean().item(), rel=1e-5)
