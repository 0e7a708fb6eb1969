"""The engine vllm with vLLM's CPU build and SmolLM2-135M. Run by tools/test_vllm.sh, in an environment of its own."""

import psutil
import pytest
import torch
from support.program import start

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.policy import plain
from hpc_saidpo.policy.gguf import convert_gguf
from hpc_saidpo.policy.locate import locate
from hpc_saidpo.policy.model import Policy
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.rollouts.engine.vllm import free
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.store.check import check
from hpc_saidpo.store.layout import iterations_of

pytestmark = pytest.mark.vllm

EAGER = {"enforce_eager": True}  # starts sooner
ENGINE = settings.Engine(engine="vllm", vllm_memory=0.1, vllm_arguments=EAGER)
QUESTIONS = ("Question: 12 + 30\nAnswer:", "Question: the greatest common divisor of 12 and 18\nAnswer:", "Once upon a")
SAMPLING = Sampling(1.0, 1.0, 24, stop=("\n",))


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    demo = compose.from_overrides(["experiment=demo"])
    folder = tmp_path_factory.mktemp("smollm2")
    convert_gguf(locate(demo.policy.path), folder)
    policy = Policy.load(str(folder), demo.policy, torch.device("cpu"))
    policy.model.eval()
    yield policy
    free()


@pytest.fixture(scope="module")
def prompts(policy):
    return [policy.encode_prompt(question, chat=False) for question in QUESTIONS]


def seeds(first: int) -> list[list[int]]:
    return [[first + 10 * i + j for j in range(4)] for i in range(len(QUESTIONS))]


def memory_of_children_gib() -> float:
    """The memory of the processes that this one has started, and of those that they have."""
    own = psutil.Process()
    return sum(child.memory_info().rss for child in own.children(recursive=True)) / 2**30


def test_responses_end_by_a_stop_string_an_end_of_sequence_or_the_maximum_length(policy, prompts):
    made = [response for row in generate(policy, prompts, seeds(0), SAMPLING, ENGINE) for response in row]
    assert len(made) == 12 and len({tuple(response.tokens) for response in made}) > 6
    ended = [response for response in made if response.finished]
    assert ended and all(len(response.tokens) == SAMPLING.max_new_tokens for response in made if not response.finished)
    for response in ended:
        whole = policy.tokenizer.decode(response.tokens)
        assert "\n" in whole or response.tokens[-1] in policy.eos_ids
        assert "\n" not in response.text and whole.startswith(response.text)


def test_log_probabilities_are_those_of_the_policy(policy, prompts):
    for prompt, row in zip(prompts, generate(policy, prompts, seeds(100), SAMPLING, ENGINE), strict=True):
        for response in row:
            with torch.no_grad():
                logp_T, _ = plain.logps(policy.model, prompt, response.tokens)
            assert response.logp == pytest.approx(float(logp_T.sum()), abs=0.02 * len(response.tokens))


def test_a_seed_draws_the_same_response_again_and_another_seed_another(policy, prompts):
    first, again, other = (
        [[response.tokens for response in row] for row in generate(policy, prompts, seeds(n), SAMPLING, ENGINE)]
        for n in (200, 200, 300)
    )
    assert first == again and first != other


def test_greedy_responses_are_those_of_the_engine_shared(policy, prompts):
    greedy, one = Sampling(0.0, 1.0, 12, stop=("\n",)), [[0]] * len(prompts)
    ours, theirs = (generate(policy, prompts, one, greedy, engine) for engine in (settings.Engine(), ENGINE))
    assert [row[0].text for row in ours] == [row[0].text for row in theirs]


def test_its_processes_end_when_the_memory_is_needed(policy, prompts):
    generate(policy, prompts[:1], [[1]], SAMPLING, ENGINE)
    before = memory_of_children_gib()
    free()
    assert memory_of_children_gib() < 0.1 < before
    assert generate(policy, prompts[:1], [[1]], SAMPLING, ENGINE)[0][0].tokens  # it starts again


def test_two_iterations_on_two_ranks(tmp_path):
    free()
    run = start(
        "experiment=demo", f"run.root={tmp_path}", "run.name=vllm", "rollouts.generate.engine=vllm",
        "rollouts.generate.vllm_memory=0.1", "+rollouts.generate.vllm_arguments={enforce_eager: true}", "rollouts.k=4",
        "pool.held_out=24", "probe.fraction=0.02", "sampler.n_questions=48", "evaluate.samples=1", "dpo.batch_pairs=4",
        ranks=2, is_warm=False, timeout_s=900,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(iterations_of(tmp_path / "vllm")) == 2 and not check(tmp_path / "vllm").findings
