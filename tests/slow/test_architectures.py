"""Every causal language model of transformers is sampled and trained as its plain forward pass computes it."""

import copy

import pytest
import torch
import transformers
from packaging import version
from support.every_model import KINDS, LEFT_OUT, is_encoder, model_of, names, shrunk
from support.make import make_pairs
from support.rightness import examine
from transformers import CONFIG_MAPPING, LlamaConfig, Phi3Config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from hpc_saidpo import settings
from hpc_saidpo.dpo.arrangement import try_arrangement
from hpc_saidpo.dpo.examples import Examples
from hpc_saidpo.dpo.train import Lesson, train
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.stop import Stopped
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import plain, trial
from hpc_saidpo.policy.attention import attention_of
from hpc_saidpo.policy.model import Policy, check_length, max_positions
from hpc_saidpo.progress import log
from hpc_saidpo.rollouts.engine import shared, ways
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.ways import tried_engine
from hpc_saidpo.settings.rollouts import Sampling

CPU = torch.device("cpu")


# The ways in KINDS, and what each class can do, are those of this version; an older one may lack a class or its means.
IS_OLDER = version.parse(transformers.__version__) < version.parse("5.24")
of_this_version = pytest.mark.skipif(IS_OLDER, reason="not run: the tables are those of transformers 5.24")


def tiny(micro, name, **more):
    return Policy(model_of(shrunk(CONFIG_MAPPING[name](), **more)), micro.tokenizer, CPU, torch.float32, name)


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_right_or_refused(micro, tmp_path, name):
    try:
        policy = tiny(micro, name)
    except (KeyError, RuntimeError) as error:
        if IS_OLDER:
            pytest.skip(f"not run: transformers {transformers.__version__} cannot build {name}: {error}")
        raise
    try:
        found = examine(policy, tmp_path)
    except RunError as error:
        assert IS_OLDER or KINDS[name] == "refused", error
        assert "use another policy (policy.path)" in str(error)
    else:
        assert IS_OLDER or (found.engine, found.arrangement) == KINDS[name]


@of_this_version
def test_no_model_is_forgotten():
    """The bench (tools/bench/bench_models.py) examines all of `names`; the tests here one of each kind."""
    every = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    encoders = {name for name in every - set(LEFT_OUT) if is_encoder(name)}
    assert len(names()) >= 140 and set(names()) | set(LEFT_OUT) | encoders == every
    assert set(KINDS) <= set(names()) and all(LEFT_OUT.values())


@pytest.fixture
def untried(monkeypatch):
    """No try-out of this process is remembered; the log is seen by the tests."""
    monkeypatch.setattr(trial, "_done", {})
    monkeypatch.setattr(log, "propagate", True)


def test_a_try_out_leaves_the_model_as_it_was(micro, untried):
    policy = tiny(micro, "gemma3_text")
    policy.model.train()
    policy.model.lm_head.eval()
    state = {name: value.clone() for name, value in policy.model.state_dict().items()}
    config, modes = copy.deepcopy(policy.model.config), [m.training for m in policy.model.modules()]
    windows = [getattr(m, "sliding_window", None) for m in policy.model.modules()]
    torch.manual_seed(7)
    random = torch.get_rng_state()
    tried_engine(policy, "shared"), tried_engine(policy, "hf"), try_arrangement(policy.model)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in policy.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in policy.model.parameters())
    assert policy.model.config.to_dict() == config.to_dict()
    assert policy.model.config._attn_implementation == config._attn_implementation
    assert modes == [m.training for m in policy.model.modules()]
    assert windows == [getattr(m, "sliding_window", None) for m in policy.model.modules()] and 6 in windows


def test_a_try_out_is_made_once_and_logged_in_one_line(micro, untried, caplog):
    with caplog.at_level("INFO", "hpc_saidpo"):
        for _ in range(2):
            tried_engine(tiny(micro, "llama"), "shared")
            try_arrangement(tiny(micro, "llama").model)
    assert [record.message.split(" (")[0] for record in caplog.records] == [
        "  rollouts, tried out with LlamaForCausalLM: shared",
        "  training, tried out with LlamaForCausalLM: shared",
    ]


@pytest.mark.parametrize("broken", ["raises", "not a number", "scaled"])
def test_a_way_that_differs_is_left_with_the_reason(micro, untried, monkeypatch, caplog, broken):
    policy, right = tiny(micro, "llama"), shared.logits_of

    def wrong(*arguments):
        if broken == "raises":
            raise KeyError("head")
        return right(*arguments) * (float("nan") if broken == "not a number" else 1.01)

    monkeypatch.setattr(shared, "logits_of", wrong)
    with caplog.at_level("INFO", "hpc_saidpo"):
        tried = tried_engine(policy, "shared")
    assert tried.way == "hf" and list(tried.failed) == ["shared"]
    says = {"raises": "KeyError: 'head'", "not a number": "nan nats", "scaled": "nats a token from the plain forward"}
    assert says[broken] in caplog.text and len(caplog.records) == 1


@pytest.mark.parametrize("error", [RunError("a full disk"), Stopped("SIGTERM"), MemoryError(), KeyboardInterrupt()])
def test_what_is_not_about_the_way_passes(micro, untried, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(shared, "logits_of", fail)
    with pytest.raises(type(error)):
        tried_engine(tiny(micro, "llama"), "shared")


def test_a_policy_that_no_way_computes_is_refused_with_every_reason(micro, untried, monkeypatch):
    def far(model, prompt, response):
        logp_T, highest_T = right(model, prompt, response)
        return logp_T - 1, highest_T

    right = plain.logps
    monkeypatch.setattr(plain, "logps", far)
    policy = tiny(micro, "llama")
    for refused in (lambda: tried_engine(policy, "shared"), lambda: try_arrangement(policy.model)):
        with pytest.raises(RunError, match="no way computes") as caught:
            refused()
        assert "shared: 1.0e+00 nats a token" in str(caught.value) and "policy.path" in str(caught.value)


def test_in_bfloat16_the_bound_is_the_rounding_of_the_plain_forward_pass(micro, untried, monkeypatch):
    policy = tiny(micro, "llama")
    policy.precision = torch.bfloat16
    engine, pairs = tried_engine(policy, "shared"), try_arrangement(policy.model, torch.bfloat16)
    assert engine.way == pairs.way == "shared"
    for tried in (engine, pairs):
        assert trial.LOWER_BOUND <= tried.bound < 1 and tried.error <= tried.bound
    right = ways.shared.logits_of
    monkeypatch.setattr(trial, "_done", {})
    monkeypatch.setattr(ways.shared, "logits_of", lambda *arguments: right(*arguments) / 8)  # another temperature
    assert tried_engine(policy, "shared").way == "hf"


def test_in_float32_large_logits_may_round_more_and_a_fault_may_not(micro, untried, monkeypatch):
    policy = tiny(micro, "llama")
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(2000)
    engine, pairs = tried_engine(policy, "shared"), try_arrangement(policy.model)
    assert engine.way == pairs.way == "shared"
    assert max(engine.error, pairs.error) > trial.BOUND
    for tried in (engine, pairs):
        assert tried.error <= tried.bound <= trial.LOWER_BOUND
    right = ways.shared.logits_of
    monkeypatch.setattr(trial, "_done", {})
    monkeypatch.setattr(ways.shared, "logits_of", lambda *arguments: right(*arguments).roll(1, -1))
    assert tried_engine(policy, "shared").way == "hf"


def test_a_trial_survives_as_plain_values(micro, untried):
    policy = tiny(micro, "llama")
    tried = tried_engine(policy, "shared")
    trial.remember(ways.engine_key(policy, "shared"), {**trial.plain_values(tried), "way": "hf without padding"})
    assert tried_engine(policy, "shared").way == "hf without padding"


@pytest.mark.parametrize(
    "config",
    [
        Phi3Config(
            **{"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "max_position_embeddings": 64, "original_max_position_embeddings": 16},
            rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
                             "long_factor": [4.0] * 4},
            pad_token_id=0,
        ),
        LlamaConfig(
            **{"vocab_size": 99, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "max_position_embeddings": 16},
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        ),
    ],
    ids=["longrope", "dynamic"],
)  # fmt: skip
def test_no_row_crosses_the_length_at_which_rotary_embeddings_change(micro, config):
    policy = Policy(model_of(config), micro.tokenizer, CPU, torch.float32, "x")
    kind = config.rope_parameters["rope_type"]
    assert max_positions(policy) == 16
    check_length(policy, 16)
    with pytest.raises(RunError, match=rf"need 17 positions.* 16 \(its rotary embeddings, of type {kind}, change when"):
        check_length(policy, 17)


@of_this_version
def test_attention_is_what_the_class_has():
    for name, expected in (("llama", "sdpa"), ("gemma2", "eager"), ("gpt_oss", "eager"), ("bloom", "eager")):
        kind = type(model_of(shrunk(CONFIG_MAPPING[name]())))
        assert attention_of(settings.Policy(path="x"), CPU, kind) == expected
        if expected == "eager":
            with pytest.raises(RunError, match=f"no sdpa for {kind.__name__}: use policy.attention=auto"):
                attention_of(settings.Policy(path="x", attention="sdpa"), CPU, kind)


INHERITED = {
    "repetition_penalty": 1.5, "typical_p": 0.05, "num_beams": 4, "no_repeat_ngram_size": 1, "min_new_tokens": 12,
    "suppress_tokens": list(range(20, 60)), "epsilon_cutoff": 0.5, "temperature": 0.1, "top_k": 1, "max_length": 3,
    "begin_suppress_tokens": list(range(20, 60)), "bad_words_ids": [[20], [21]], "forced_eos_token_id": 5,
    "sequence_bias": [[[30], 50.0]], "exponential_decay_length_penalty": (1, 9.0), "renormalize_logits": True,
    "top_h": 0.1, "eta_cutoff": 0.5, "guidance_scale": 2.0, "num_return_sequences": 1, "use_cache": False,
}  # fmt: skip


@pytest.mark.parametrize("name", INHERITED)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_is_inherited_from_the_generation_config(micro, monkeypatch, name, temperature):
    policy, prompts = tiny(micro, "llama"), [[5, 6, 7], [8, 9, 10, 11]]
    arguments = policy, prompts, [[1, 2], [3, 4]], Sampling(temperature, 1.0, 8), settings.Engine(engine="hf")
    expected = [[r.tokens for r in row] for row in generate(*arguments)]
    before = policy.model.generation_config
    changed = copy.deepcopy(before)
    setattr(changed, name, INHERITED[name])
    monkeypatch.setattr(policy.model, "generation_config", changed)
    assert [[r.tokens for r in row] for row in generate(*arguments)] == expected
    assert policy.model.generation_config is changed


def test_fast_linears_return_memory_as_usual(micro):
    policy = tiny(micro, "llama")
    layer, rows = policy.model.lm_head, torch.randn(6, 1, 32)
    with torch.no_grad(), ways.linears.fast(policy, torch.float32):
        fast = layer(rows)
    assert fast.is_contiguous() and fast.stride() == layer(rows).stride()
    torch.testing.assert_close(fast, layer(rows))


def test_engine_hf_uses_no_fast_linears(micro, monkeypatch):
    monkeypatch.setattr(ways.linears, "fast", lambda *_: pytest.fail("fast linear layers"))
    policy = tiny(micro, "llama")
    assert generate(policy, [[5, 6]], [[1]], Sampling(0.0, 1.0, 2), settings.Engine(engine="hf"))[0][0].tokens


def test_a_model_with_parts_that_text_does_not_reach_is_trained_exactly(micro):
    """Gemma 3 has parts for images. Their weights have no gradient, and stay as they are."""
    policy = tiny(micro, "gemma3")
    assert try_arrangement(policy.model).unused and not try_arrangement(tiny(micro, "llama").model).unused
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    examples = Examples([[5, 6, 7], [8, 9]], [[10, 11], [12]], [[13], [14, 15]], 0, "packed")
    config = settings.Dpo(lr=1e-3, batch_pairs=2, micro_pairs=1)
    for exact in (False, True):
        train(policy, Lesson(make_pairs(2), examples, 0, 0, exact), config, World())
    changed = {name for name, p in policy.model.named_parameters() if not torch.equal(p, before[name])}
    assert any("language_model" in name for name in changed)
    assert not any("vision" in name or "projector" in name for name in changed)
