"""env.json: versions of everything that grades or generates, and messages where compared figures differ in them."""

import json

import pytest
import torch

from hpc_saidpo.cli.evaluation import other_software
from hpc_saidpo.cli.session import environment
from hpc_saidpo.parallel.world import World
from hpc_saidpo.store.software import differences, read_starts


def put(run, *starts, benchmarks=()):
    run.mkdir(parents=True)
    (run / "env.json").write_text(json.dumps(starts))
    if benchmarks:
        (run / "evaluation.json").write_text(json.dumps([{"benchmark": name} for name in benchmarks]))


def start(**packages):
    return {"packages": packages}


def test_a_start_records_all_that_grades_or_generates():
    facts = json.loads(json.dumps(environment(World(), 1)))
    packages = facts["packages"]
    for name in ("math-verify", "sympy", "latex2sympy2-extended", "torch", "transformers", "tokenizers", "h5py",
                 "mpi4py", "sentence-transformers", "scikit-learn", "numpy", "peft"):  # fmt: skip
        assert packages[name], name
    assert {"vllm", "flash-attn", "cuml-cu13", "cupy-cuda13x", "reasoning-gym", "bitsandbytes"} <= packages.keys()
    assert packages["torch"] in (torch.__version__, torch.__version__.partition("+")[0])  # its metadata may lack +cu128
    assert facts["cuda"] == torch.version.cuda
    assert facts["mpi"] and facts["python"] and isinstance(facts["gpus"], list)


def test_a_difference_names_the_package_the_versions_and_the_runs():
    old, new = start(**{"math-verify": "0.8.0", "h5py": "3.11"}), start(**{"math-verify": "0.9.0", "h5py": "3.12"})
    (line,) = differences({"a": [old], "b": [new], "c": [old, new]})
    assert line == "figures come from different versions of math-verify (grades): 0.8.0 in a, c; 0.9.0 in b, c"
    many = differences({**{f"r{i}": [old] for i in range(5)}, "z": [new]})
    assert many[0].endswith("0.8.0 in r0, r1, r2 and 2 more; 0.9.0 in z")


@pytest.mark.parametrize(
    "other", [{}, {"packages": {"torch": "2.9.1"}}, {"packages": {"math-verify": "0.9.0", "h5py": "1"}}]
)
def test_unknown_facts_and_packages_without_effect_do_not_differ(other):
    assert differences({"a": [start(**{"math-verify": "0.9.0", "h5py": "3.12"})], "b": [other]}) == []


def test_a_package_that_only_one_of_the_runs_had_differs():
    (line,) = differences({"a": [start(vllm=None)], "b": [start(vllm="0.33.0")]})
    assert "0.33.0 in b; none in a" in line
    (line,) = differences({"a": [{"gpus": ["H100"]}], "b": [{"gpus": ["A100"]}]})
    assert line == "figures come from different GPUs (generates): A100 in b; H100 in a"


def test_a_damaged_record_is_no_record(tmp_path):
    (tmp_path / "env.json").write_text("[{")
    assert read_starts(tmp_path) == [] and read_starts(tmp_path / "none") == []


def test_an_evaluation_names_other_versions_of_evaluations_with_a_common_benchmark(tmp_path):
    old, new = start(sympy="1.12"), start(sympy="1.14")
    put(tmp_path / "evaluate-a", old, benchmarks=["math500"])
    put(tmp_path / "evaluate-b", old, benchmarks=["gsm8k"])
    put(tmp_path / "evaluate-c", new)
    (line,) = other_software(tmp_path / "evaluate-c", {"math500"})
    assert line.endswith("different versions of sympy (grades): 1.12 in evaluate-a; 1.14 in evaluate-c")
    assert other_software(tmp_path / "evaluate-c", {"aime24"}) == []
