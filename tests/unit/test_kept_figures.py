"""The figures of benchmarks that are kept in tools/bench/results/."""

import json
from pathlib import Path

from bench import kept

BENCHES = Path(kept.__file__).parent


def test_ratios_that_moved_are_found_and_figures_with_units_are_not_compared():
    before = {"x_vllm": 1.2, "share": 0.5, "load_s": 3.0, "zero": 0.0, "gone": 1.0, "machine": "a", "mem_vs_hf": None}
    now = {"x_vllm": 1.07, "share": 0.54, "load_s": 9.0, "zero": 0.0, "new": 1.0, "machine": "b", "mem_vs_hf": 2.0}
    assert kept.moved(before, now) == [("x_vllm", 1.2, 1.07)]


def test_figures_are_kept_with_their_machine_and_compared_afterwards(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["bench_x.py", "--repeats", "2", "--data", "somewhere/data", "--record"])
    kept.show_moved("bench_x", {"ratio": 1.0})
    assert capsys.readouterr().out == ""
    kept.record("bench_x", {"ratio": 1.0, "load_s": 2.0})
    content = json.loads((tmp_path / "results" / "bench_x.json").read_text())
    assert content["command"] == "tools/bench/bench_x.py --repeats 2 --data data"
    assert content["machine"]["cores"] >= 1 and content["versions"]["torch"]
    kept.show_moved("bench_x", {"ratio": 1.05})
    kept.show_moved("bench_x", {"ratio": 1.2})
    first, second = capsys.readouterr().out.strip().split("\n\n")
    assert "no ratio moved by more than 10%" in first
    assert "ratio" in second and "1 -> 1.2  moved" in second


def test_every_kept_file_is_of_a_benchmark_and_names_its_machine():
    for path in (BENCHES / "results").glob("*.json"):
        assert (BENCHES / f"{path.stem.partition('-')[0]}.py").exists(), path
        content = json.loads(path.read_text())
        assert {"command", "date", "machine", "versions", "figures"} == set(content), path
