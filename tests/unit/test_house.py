"""The rules of the house (hpc_saidpo/README.md), read from the source text: nothing of the package is executed."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[2]
PACKAGE = HOME / "hpc_saidpo"
# From the bottom to the top: a file imports files of its own box, and of boxes on lower floors only.
FLOORS = (
    ("__init__", "errors", "names", "reading", "table", "unicode"),
    ("settings", "imports", "plugin", "records", "parallel", "picture", "terminal", "layout"),
    ("screen",),
    ("progress",),
    ("difficulty", "store", "grader", "sandbox"),
    ("policy", "sampler"),
    ("rollouts", "dpo", "clusters", "pool", "loop"),
    ("tags", "evaluate"),
    ("metrics", "doctor", "report"),
    ("compare",),
    ("stages", "prepare"),
    ("cli",),
    ("__main__",),
)
FLOOR = {box: number for number, boxes in enumerate(FLOORS) for box in boxes}
LONGEST_CHAIN = 12  # files
LINES, FUNCTION_LINES, PARAMETERS = 300, 60, 8
# Libraries, and the only boxes that import them.
ONLY_IN = {
    "mpi4py": {"parallel"},
    "torch.distributed": {"parallel"},
    "h5py": {"store"},
    "hdf5plugin": {"store"},
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "cuml": {"clusters"},
    "cupy": {"clusters", "sampler"},
    "pyarrow": {"pool", "report"},
    "peft": {"dpo"},
    "bitsandbytes": {"dpo"},
    "urllib": {"tags"},
    "http": {"tags"},
}
# Files and boxes of pure functions: no path, rank, model, clock or global random state.
PURE = (
    "records", "table", "errors", "unicode", "difficulty", "settings", "metrics", "grader.answers", "sampler",
    "evaluate.intervals", "rollouts.chunks", "rollouts.steps", "rollouts.prompt", "dpo.pairs",
    "pool.arithmetic", "pool.canonical", "pool.decontaminate", "pool.expressions", "pool.grams", "pool.indexes",
    "pool.spellings", "pool.wrappers",
)  # fmt: skip
NOT_PURE = ("sampler.stage", "settings.keys")
PURE_MAY_IMPORT = {"numpy", "scipy", "pydantic", "mpmath", "hpc_saidpo"}
IMPURE_LIBRARIES = {"os", "pathlib", "time", "random", "socket", "subprocess", "threading"}
OPEN_FILES = {
    "store",
    "reading",
    "pool",
    "policy",
    "settings",
    "sandbox",
    "cli",
    "parallel",
}  # the last four: pipes, /proc, programs
SETTINGS_IMPORT = {"pydantic", "hpc_saidpo"}  # besides the standard library
BOXES_WITH_STAGES = {"pool", "tags", "clusters", "rollouts", "sampler", "dpo", "policy", "grader", "evaluate"}
UNWANTED_NAMES = {"utils", "common", "helpers", "base_utils", "manager", "misc"}


def module_of(path: Path) -> str:
    """The dotted name of a file, the package's own name left out."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def box_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(module: str) -> list[tuple[str, str, str | None]]:
    """(module that an import statement names, name that is imported from it or "", its other name) of each import.

    Modules of the package begin with "hpc_saidpo"; a relative import is made absolute.
    """
    result = []
    is_package = FILES[module].name == "__init__.py"
    place = ["hpc_saidpo", *(module.split(".") if module != "__init__" else [])]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            result += [(alias.name, "", alias.asname) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (place if is_package and module != "__init__" else place[:-1])[: len(place)]
            base = ["hpc_saidpo"] if module == "__init__" else base
            base = base[: len(base) - (node.level - 1)] if node.level > 1 else base
            name = ".".join([*(base if node.level else []), *([node.module] if node.module else [])])
            result += [(name, alias.name, alias.asname) for alias in node.names]
    return result


@functools.cache
def files_imported_by(module: str) -> frozenset[str]:
    """The files of the package that a file imports, at its top, in functions, or for types alone."""
    result = set()
    for name, attribute, _ in imports_of(module):
        if name.partition(".")[0] != "hpc_saidpo":
            continue
        inner = name.removeprefix("hpc_saidpo").removeprefix(".")
        whole = f"{inner}.{attribute}".strip(".")
        result.add(whole if whole in FILES else inner or "__init__")
    return frozenset(result - {module})


def functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [
        (module, node)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_every_box_has_a_floor():
    assert {box_of(module) for module in FILES} <= set(FLOOR)


@pytest.mark.parametrize("module", FILES)
def test_imports_go_downward(module):
    upward = [
        imported
        for imported in files_imported_by(module)
        if box_of(imported) != box_of(module) and FLOOR[box_of(imported)] >= FLOOR[box_of(module)]
    ]
    assert not upward


def test_no_cycle_and_no_long_chain():
    longest: dict[str, list[str]] = {}

    def chain(module: str, above: tuple[str, ...] = ()) -> list[str]:
        assert module not in above, f"a cycle: {' > '.join([*above[above.index(module) :], module])}"
        if module not in longest:
            below = [chain(imported, (*above, module)) for imported in files_imported_by(module)]
            longest[module] = [module, *max(below, key=len, default=[])]
        return longest[module]

    worst = max((chain(module) for module in FILES), key=len)
    assert len(worst) <= LONGEST_CHAIN, " > ".join(worst)


@pytest.mark.parametrize(("library", "boxes"), ONLY_IN.items())
def test_a_library_stays_in_its_box(library, boxes):
    users = {
        box_of(module)
        for module in FILES
        for name, attribute, _ in imports_of(module)
        if f"{name}.{attribute}".startswith(library + ".") or name == library
    }
    assert users <= boxes


def test_torch_distributed_is_used_in_parallel_alone():
    for module, tree in TREES.items():
        uses = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) == "torch.distributed"]
        assert not uses or box_of(module) == "parallel", module


def libraries_of(module: str) -> set[str]:
    return {name.partition(".")[0] for name, *_ in imports_of(module)}


def is_pure(module: str) -> bool:
    within = [place for place in PURE if module == place or module.startswith(place + ".")]
    return bool(within) and module not in NOT_PURE


@pytest.mark.parametrize("module", [module for module in FILES if is_pure(module)])
def test_pure_files_are_pure(module):
    libraries = libraries_of(module)
    assert not libraries - PURE_MAY_IMPORT - sys.stdlib_module_names
    assert not libraries & IMPURE_LIBRARIES


def test_the_sandbox_needs_python_alone():
    """It runs without site-packages."""
    for module in FILES:
        if box_of(module) == "sandbox":
            others = {name for name, *_ in imports_of(module) if not name.startswith("hpc_saidpo.sandbox")}
            assert {name.partition(".")[0] for name in others} <= sys.stdlib_module_names, module


def test_files_are_opened_in_few_boxes():
    for module, tree in TREES.items():
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert box_of(module) in OPEN_FILES or not calls & {"open", "os.replace"}, module


def test_settings_import_nothing_heavy():
    for module in FILES:
        if box_of(module) == "settings":
            assert libraries_of(module) - sys.stdlib_module_names <= SETTINGS_IMPORT, module


def test_no_module_of_ours_is_renamed_at_import():
    renamed = [
        f"{module}: {name}.{attribute} as {other}"
        for module in FILES
        for name, attribute, other in imports_of(module)
        if other and name.startswith("hpc_saidpo") and f"{name}.{attribute}".removeprefix("hpc_saidpo.") in FILES
    ]
    assert not renamed


def test_packages_only_say_what_they_are():
    for module, path in FILES.items():
        if path.name == "__init__.py" and module not in ("__init__", "settings", "sampler"):
            assert len(TREES[module].body) == 1, f"{module}/__init__.py has more than a docstring"


def test_files_are_short_and_have_names():
    for module, path in FILES.items():
        assert path.read_text(encoding="utf-8").count("\n") <= LINES, module
        assert not UNWANTED_NAMES & set(module.split(".")), module
        assert ast.get_docstring(TREES[module]), f"{module} has no docstring"


def test_functions_are_short_and_have_few_parameters():
    for module, function in functions():
        assert function.end_lineno - function.lineno < FUNCTION_LINES, f"{module}.{function.name}"
        arguments = function.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        assert len([n for n in names if n not in ("self", "cls")]) <= PARAMETERS, f"{module}.{function.name}"


def test_the_whole_configuration_stays_above():
    """Below cli, stages and doctor, functions take their own group of settings, typed by its class."""
    for module in FILES:
        if box_of(module) not in ("cli", "stages", "prepare", "doctor", "settings"):
            assert not [name for name, *_ in imports_of(module) if name == "hpc_saidpo.settings.whole"], module
    for module, function in functions():
        for argument in (*function.args.args, *function.args.kwonlyargs):
            if argument.arg in ("config", "settings"):
                shown = ast.unparse(argument.annotation) if argument.annotation else "nothing"
                assert argument.annotation and shown not in ("object", "Any"), f"{module}.{function.name}: {shown}"


def test_the_run_folder_is_taken_by_one_file_of_a_box():
    for module in FILES:
        if box_of(module) in BOXES_WITH_STAGES and not module.endswith(".stage"):
            assert "store.run" not in files_imported_by(module), module


# Calls that show a text to a person, and expressions that are paths or places in files: others may have named them.
SHOWING = {
    "RunError", "Damaged", "TryAgain", "try_again", "Ended", "Finding", "BadRow", "Problem", "Unreadable", "print",
    "complain", "say", "fail", "judge", "BundleError",
}  # fmt: skip
A_PLACE = re.compile(r"(?:^|[._])(?:path|folder|run|root|file|place|home|where|entry)$| / ")
TOOLS = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (HOME / "tools").glob("*.py")}


def test_messages_show_paths_without_control_characters():
    """A file may have any name: `errors.shown` shows it on one line, escaped and cut."""
    user_tools = [tree for path, tree in TOOLS.items() if path.stem.startswith(("submit", "bundle"))]
    raw = [
        f"line {part.lineno}: {ast.unparse(part.value)}"
        for tree in (*(tree for module, tree in TREES.items() if module != "errors"), *user_tools)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] in SHOWING
        for part in ast.walk(call)
        if isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None
        if isinstance(part.value, ast.Name | ast.Attribute | ast.BinOp) and A_PLACE.search(ast.unparse(part.value))
    ]
    assert not raw
