"""Imports go only downward, and the outside world is reached through one door each."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "hpc_saidpo"
FLOORS = [
    {
        "__init__", "records", "prompt", "verify", "probe", "difficulty", "sampler", "pairs", "evaluate", "metrics",
        "arithmetic", "steps", "chunks", "training", "signatures",
    },
    {"progress", "flash", "sandbox"},
    {"parallel", "store", "policy", "generate", "grader", "logps", "checkpoint"},
    {"pool", "tags", "clusters", "rollouts", "dpo", "loaded"},
    {"inputs", "benchmarks", "preparation", "memory", "round"},
    {"job"},
    {"loop"},
    {"__main__", "command", "config", "report", "sweep", "export", "explain", "doctor", "evaluate.__main__"},
]  # fmt: skip
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
ONLY_IN = {
    "hydra": {"command", "config"},
    "omegaconf": {"command", "config"},
    "h5py": {"store"},
    "hdf5plugin": {"store"},
    "mpi4py": {"parallel"},
    "cupy": {"clusters", "sampler"},
    "cuml": {"clusters"},
    "torch.distributed": {"parallel"},
    "pyarrow": {"pool", "export"},
    "peft": {"dpo"},
    "bitsandbytes": {"dpo"},
    "urllib": {"tags"},
    "http": {"tags"},
}
PURE_MAY_IMPORT = {"numpy", "scipy", "pydantic", "mpmath"}
# A module is a file, or a folder of files that know each other; a folder's __main__ is a program, and stands above all.
MODULES = sorted(
    {p.stem for p in PACKAGE.glob("*.py")}
    | {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    | {f"{p.parent.name}.__main__" for p in PACKAGE.glob("*/__main__.py")}
)


def files(name):
    """A module's files, each with the number of dots that lead out of it into the package."""
    folder = PACKAGE / name
    if name.endswith(".__main__"):
        return [(PACKAGE / name.removesuffix(".__main__") / "__main__.py", 2)]
    own = (p for p in sorted(folder.glob("*.py")) if p.stem != "__main__")
    return [(p, 2) for p in own] if folder.is_dir() else [(PACKAGE / f"{name}.py", 1)]


def imports(name):
    """(own modules, outside modules) that a module imports anywhere in its code; attribute paths of torch included."""
    own, outside = set(), set()
    for path, dots in files(name):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == dots:
                own |= {node.module.split(".")[0]} if node.module else {a.name for a in node.names if a.name in FLOOR}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                outside |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Import):
                outside |= {a.name for a in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.distributed"):
                outside.add("torch.distributed")
    return own, outside


def test_every_module_has_a_floor():
    assert set(MODULES) == set(FLOOR)


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name):
    own, _ = imports(name)
    floor = FLOOR[name]
    beside = {
        "store": {"parallel"},
        "policy": {"parallel"},
        "generate": {"policy", "progress"},
        "logps": {"policy"},
        "checkpoint": {"parallel", "store"},
    }.get(name, set())  # resources may stand on each other
    same_floor_allowed = floor in (0, len(FLOORS) - 1)
    for other in own - beside:
        assert FLOOR[other] < floor or (same_floor_allowed and FLOOR[other] == floor), f"{name} imports {other}"


@pytest.mark.parametrize("name", MODULES)
def test_one_door_each(name):
    _, outside = imports(name)
    for module, doors in ONLY_IN.items():
        if name not in doors:
            assert not [o for o in outside if o == module or o.startswith(module + ".")], f"{name} imports {module}"


@pytest.mark.parametrize("name", sorted(FLOORS[0]))
def test_pure_modules_are_pure(name):
    _, outside = imports(name)
    roots = {o.split(".")[0] for o in outside}
    assert not roots - PURE_MAY_IMPORT - set(sys.stdlib_module_names)
    assert not roots & {"os", "pathlib", "time", "random", "socket"}


def test_the_sandbox_needs_python_alone():
    """It runs without site-packages."""
    own, outside = imports("sandbox")
    assert not own and {o.split(".")[0] for o in outside} <= set(sys.stdlib_module_names)


def test_paths_of_a_run_are_named_in_the_store_only():
    for name in set(MODULES) - {"store", "pool", "policy", "config", "sandbox"}:  # whose files are pipes and /proc
        calls = [n for path, _ in files(name) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        assert not [n for n in calls if ast.unparse(n.func) in ("open", "os.replace")], f"{name} opens a file"
