"""The preflight: its arithmetic against hand-made figures, its checks on this machine, its failures by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hpc_saidpo import settings
from hpc_saidpo.cli import compose
from hpc_saidpo.doctor import disk, gpu, inputs, memory, plan, ranks, software, tryout
from hpc_saidpo.doctor.finding import FAILURE, OK, WARNING, judge, plain, table
from hpc_saidpo.dpo.arrangement import tried_arrangement
from hpc_saidpo.errors import RunError
from hpc_saidpo.parallel.world import World
from hpc_saidpo.policy import trial
from hpc_saidpo.rollouts.engine import kernels, shared
from hpc_saidpo.rollouts.engine.sampling import Response
from hpc_saidpo.rollouts.engine.ways import tried_engine
from hpc_saidpo.store.run import RunDir


def built(*overrides):
    return compose.from_overrides(overrides)


MODEL = memory.Model(
    n_parameters=1_000_000, n_layers=10, layer_parameters=80_000, rank_parameters=10_000, hidden=100, mlp=300,
    queries=100, kv_width=50, vocabulary=1000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("train", "roll", "state", "says"),
    [
        (80, 85, OK, "training 80.0 GiB, rollouts 85.0 GiB, of 100.0 per rank"),
        (86, 10, WARNING, "close to the limit"),
        (10, 86, WARNING, "close to the limit"),
        (10, 101, FAILURE, "the rollouts do not fit: lower rollouts.generate.rows"),
        (101, 10, FAILURE, "training does not fit"),
        (101, 102, FAILURE, "training does not fit"),
    ],
)
def test_memory_is_enough_close_to_the_limit_or_too_small(train, roll, state, says):
    found = plan._memory(MODEL, train * 2**30, roll * 2**30, 100 * 2**30)
    assert found.state == state and says in table([found])


def test_time_arithmetic():
    config = built("experiment=tiny", "rollouts.max_new_tokens=100", "rollouts.chunk_questions=4", "rollouts.k=8",
                   "probe.fraction=0.1", "sampler.n_questions=40")  # fmt: skip
    by_memory, by_arithmetic = plan.Rates(1e15, 2e9), plan.Rates(6.4e9, 1e15)
    overhead = 100 * 10 * plan.LAYER_OVERHEAD_S
    assert plan.chunk_s(MODEL, config.rollouts, by_memory, 2) == pytest.approx(100 * 1e-3 / plan.DECODING + overhead)
    assert plan.chunk_s(MODEL, config.rollouts, by_arithmetic, 2) == pytest.approx(
        100 * 1e-2 / plan.DECODING + overhead
    )
    times = plan.stage_times(MODEL, config, plan.Sizes(50, 800, 200), by_arithmetic, 2, 2)
    one = (1 / plan.DECODING + overhead) / 4 / 2
    assert times["probe"] == pytest.approx(80 * one) and times["explore"] == pytest.approx(40 * one)
    assert times["evaluate"] == pytest.approx(200 / 8 * one)
    assert times["DPO"] == pytest.approx(20 * 250 * 1e6 * 8 / (plan.TRAINING * 6.4e9) / 2)


def test_a_verifier_that_cannot_grade_here_is_reported(monkeypatch):
    def verifier(*overrides):
        return {f.name: f for f in software.check(World(), built("experiment=tiny", *overrides))}["verifier"]

    assert (verifier().state, verifier().text) == (OK, "math")
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert verifier("pool=code").state == FAILURE and "code_unsandboxed" in verifier("pool=code").remedy


@pytest.mark.parametrize(
    "n_ranks, n_cores, n_threads, state, says",
    [
        (4, 64, 16, OK, "n0: 64 cores for 4 ranks with 16 threads each"),
        (4, 64, 4, WARNING, "most cores are idle (OMP_NUM_THREADS=4)"),
        (2, 4, 4, WARNING, "more threads than cores (OMP_NUM_THREADS=4)"),
        (4, 2, 1, WARNING, "fewer cores than ranks"),
        (1, 1, 1, OK, "n0: 1 core for 1 rank with 1 thread each"),
    ],
)
def test_threads_are_compared_with_cores(n_ranks, n_cores, n_threads, state, says):
    uses = [ranks.Use(0, "n0", range(n_cores), n_threads)] * n_ranks
    found = ranks.judge_cores(uses, "4" if n_threads == 4 else "")
    assert found.state == state and says in found.text + found.remedy, found


def test_the_node_with_the_worst_balance_is_reported():
    uses = [ranks.Use(0, "good", range(8), 8), ranks.Use(1, "bad", range(2), 8), ranks.Use(2, "good", range(8), 8)]
    assert "bad: 2 cores" in ranks.judge_cores(uses, "").text


def test_ranks_are_compared_with_chunks():
    config = built("experiment=tiny", "sampler.n_questions=300", "rollouts.chunk_questions=64")
    assert plan.judge_chunks(config, 2400, 5) == judge("chunks", "probe 4, explore 5")
    assert "at most 5 ranks have work" in plan.judge_chunks(config, 2400, 6).remedy
    rounds = ("sampler.n_questions=1000", "sampler.budget.pairs=99", "rollouts.chunk_questions=8")
    in_rounds = built("experiment=tiny", *rounds)
    assert "explore has 16 chunks of rollouts (125 questions)" in plan.judge_chunks(in_rounds, 2400, 24).remedy


def test_rates_are_of_this_machine():
    rates = plan.measure(torch.device("cpu"), torch.float32)
    assert 1e8 < rates.flops < 1e15 and 1e7 < rates.bytes_per_s < 1e13


def test_each_gpu_path_runs_here_on_the_cpu_in_its_place():
    found = gpu.compare(torch.device("cpu"))
    assert [f.name for f in found] == [
        "GPU log-probabilities", "GPU generation", "GPU bfloat16", "GPU bfloat16 generation", "GPU DPO round",
        "GPU k-means",
    ]  # fmt: skip
    assert {f.state for f in found} == {OK}, found
    assert gpu.check(World())[0].text == "not run: no GPU"


def test_a_device_that_computes_something_else_is_reported(monkeypatch):
    errors, right = iter([0.5]), gpu.response_logps
    monkeypatch.setattr(gpu, "response_logps", lambda *arguments: right(*arguments) + next(errors, 0.0))
    found = {f.name: f for f in gpu.compare(torch.device("cpu"))}
    assert found["GPU log-probabilities"].state == FAILURE
    assert "do not trust this node" in found["GPU log-probabilities"].remedy
    assert found["GPU DPO round"].state == OK


def test_an_attention_kernel_that_computes_something_else_is_reported(monkeypatch):
    for error, state in ((0.0, OK), (3.0, FAILURE)):

        def kernel(query, *kept, error=error, **options):
            output, lse = kernels.by_torch(query, *kept, **options)
            return output + error, lse

        monkeypatch.setattr(kernels, "find_kernel", lambda attention, kernel=kernel: kernel)
        found = {f.name: f for f in gpu.compare(torch.device("cpu"))}["GPU bfloat16 generation"]
        assert found.state == state and "16 responses as engine hf's" in found.text


def test_compiled_decoding_is_checked_where_it_is_on(monkeypatch):
    requested = []
    answers = lambda policy, engine: requested.append(engine) or [Response(logp=0.0)]  # noqa: E731
    monkeypatch.setattr(gpu, "_answers", answers)
    assert gpu.compare(torch.device("cpu"), compiled=True)[-1].name == "GPU compiled generation"
    assert requested[-2:] == [settings.Engine(compile=True), settings.Engine()]


def test_a_kernel_that_fails_is_a_finding_and_the_rest_is_still_checked(monkeypatch):
    def fail(*_):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(gpu, "generate", fail)
    states = [(f.state, f.text) for f in gpu.compare(torch.device("cpu"))]
    assert states[1][0] == FAILURE and "no kernel image" in states[1][1]
    assert [state for state, _ in states].count(OK) == 4


def test_findings_as_a_table_and_as_plain_values():
    findings = [judge("a", "1 s"), judge("bb", "2 s", warning="wait"), judge("c", "3 s", failure="stop", warning="no")]
    lines = table(findings).splitlines()
    assert lines == [
        "     ok  a   1 s", "warning  bb  2 s", "             → wait", "failure  c   3 s", "             → stop", "",
        "1 ok, 1 warning, 1 failure",
    ]  # fmt: skip
    assert plain(findings)["c"] == {"state": "failure", "told": "3 s", "remedy": "stop"}


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a model in three files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (
        "config.json",
        "tokenizer.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ):
        (folder / name).write_text("{}")
    for i in (1, 2):
        save_file({f"w{i}": torch.zeros(1)}, folder / f"model-0000{i}-of-00002.safetensors")
    shards = {"w1": "model-00001-of-00002.safetensors", "w2": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    return folder


@pytest.mark.parametrize(
    "lost, says",
    [
        (["config.json"], "has no config.json"),
        (["tokenizer.json"], "has no tokenizer"),
        (["model-00002-of-00002.safetensors"], "lacks model-00002-of-00002.safetensors of 2 files"),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
         "has no weights"),
    ],
)  # fmt: skip
def test_an_incomplete_model_is_refused_before_anything_is_computed(model, lost, says):
    config = built("experiment=tiny", f"policy.path={model}")
    assert not [i for i in inputs.list_inputs(config) if i.problem]
    for name in lost:
        (model / name).unlink()
    with pytest.raises(RunError, match=says):
        inputs.check(config)


def test_a_path_of_several_folders_is_no_name_on_the_hub():
    with pytest.raises(RunError, match=r"policy\.path=no/such/folder: no such folder\n"):
        inputs.check(built("experiment=tiny", "policy.path=no/such/folder"))


def test_all_that_is_missing_is_named_at_once():
    config = built("experiment=tiny", "policy.path=org/name", "clusters.encoder=pkg://no_such_package/model",
                   "evaluate.benchmarks=[held_out,/no/benchmark.jsonl]")  # fmt: skip
    with pytest.raises(RunError) as error:
        inputs.check(config)
    for key in (
        "policy.path=org/name: no such folder, and no model of that name in the local Hub cache",
        "clusters.encoder=pkg://no_such_package/model",
        "evaluate.benchmarks=/no/benchmark.jsonl: no such file",
    ):
        assert key in str(error.value)


def test_the_policy_is_tried_out():
    (found,) = tryout.check(World(), built("experiment=tiny"))
    assert found.state == OK and "engine shared: shared" in found.text and "pairs in rows: shared" in found.text
    (found,) = tryout.check(World(), built("experiment=tiny", "policy.path=pkg://no_such_package/model"))
    assert found.state == FAILURE and "no_such_package" in found.remedy


def test_a_policy_that_needs_another_way_is_a_warning(monkeypatch):
    def fail(*_):
        raise ValueError("no head")

    monkeypatch.setattr(trial, "_done", {})
    monkeypatch.setattr(shared, "logits_of", fail)
    (found,) = tryout.check(World(), built("experiment=tiny"))
    assert found.state == WARNING and "engine shared: hf" in found.text and "ValueError: no head" in found.remedy


def test_a_run_keeps_the_result(tmp_path, monkeypatch, micro):
    run = RunDir(tmp_path, World(), {}, print)
    monkeypatch.setattr(trial, "_done", {})
    tryout.keep(run, micro, settings.Engine(), trains=True)
    kept = json.loads((tmp_path / "models.json").read_text())
    assert {name.rpartition("-")[0]: fact["way"] for name, fact in kept.items()} == {
        "engine shared": "shared",
        "pairs in rows": "shared",
    }
    # A resumed run does not try again: it uses what the run used before.
    changed = {name: {**fact, "way": {"engine shared": "hf", "pairs in rows": "padded"}[name.rpartition("-")[0]]}
               for name, fact in kept.items()}  # fmt: skip
    (tmp_path / "models.json").write_text(json.dumps(changed))
    tryout.keep(run, micro, settings.Engine(), trains=True)
    assert tried_engine(micro, "shared").way == "hf" and tried_arrangement(micro) == "padded"
    assert json.loads((tmp_path / "models.json").read_text()) == changed


@pytest.mark.parametrize(
    ("driver", "built", "can_use", "state", "says"),
    [
        (None, "13.0", False, OK, "no driver; torch is built for CUDA 13.0"),
        (None, None, False, OK, "no driver; torch is built for the CPU"),
        (13020, None, False, FAILURE, "torch has no CUDA"),
        (13020, "13.0", True, OK, "driver for CUDA 13.2; torch for 13.0"),
        (13020, "13.0", False, FAILURE, "torch cannot use the GPU"),
        (12080, "13.0", True, FAILURE, "too old for CUDA 13.0: install a torch built for CUDA 12"),
    ],
)
def test_the_driver_must_fit_torch(monkeypatch, driver, built, can_use, state, says):
    monkeypatch.setattr(software.devices, "driver_cuda", lambda: driver)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: can_use)
    found = software._cuda()
    assert found.state == state and says in table([found])


def test_the_file_that_measures_the_bandwidth_has_the_bytes_that_are_counted(monkeypatch, tmp_path):
    monkeypatch.setattr(disk, "WRITTEN_BYTES", 3 << 20)
    assert "MB/s (3 MiB, synced)" in table([disk._speed(tmp_path)])
    assert (tmp_path / "block").stat().st_size == 3 << 20
