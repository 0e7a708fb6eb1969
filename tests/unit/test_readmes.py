"""The READMEs name only what exists: files, settings, verbs, files of conf/, headings."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support.readmes import HOME, READMES, bash_words, code_of

from hpc_saidpo.cli.help import VERBS
from hpc_saidpo.errors import RunError
from hpc_saidpo.settings.keys import check_key, fields_at, options_of
from hpc_saidpo.settings.whole import Settings

FOLDERS = ("hpc_saidpo", "conf", "slurm", "tools", "tests", ".ci")
GROUPS = ("experiment", "sweep", "pool", "policy", "dpo", "rollouts/prompt")
ENDINGS = ("h5", "html", "json", "jsonl", "md", "png", "py", "sbatch", "txt", "yaml", "yml")
# STEP.OPTION of tools/submit.py; a method
NOT_KEYS = {"run.time", "evaluate.time", "evaluate.nodes", "report.mem", "run.stage"}
KEY = re.compile(rf"(?<![\w./@-])(?:{'|'.join(fields_at([]))})(?:\.[A-Za-z_][\w]*)+")
PATH = re.compile(r"(?<![\w./:@=-])(?:[\w.-]+/)+[\w.*-]*")


def named(pattern: re.Pattern, languages: Sequence[str] = ("", "bash")) -> list[tuple[str, str]]:
    """(README, match) of a pattern in code spans and blocks of the READMEs; each once."""
    return sorted({(n, m[0]) for n in READMES for text in code_of(n, languages) for m in pattern.finditer(text)})


def in_repository(readme: str, path: str) -> Path | None:
    """A path of a README in the checkout: from the root, or beside the README; None where it names something else."""
    for folder in (HOME, (HOME / readme).parent):
        if (folder / path.split("/")[0]).exists() and path.split("/")[0] not in ("..", ".venv", "runs"):
            return folder / path
    return None


def test_the_first_readme_is_short():
    text = (HOME / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert len(text.encode()) <= 10_000
    assert pictures and sum((HOME / path).stat().st_size for path in pictures) <= 100_000


def test_the_package_description_is_the_readme():
    assert 'long_description=Path("README.md").read_text' in (HOME / "setup.py").read_text()


def test_there_is_a_readme_for_each_folder():
    assert set(READMES) >= {"README.md", *(f"{folder}/README.md" for folder in FOLDERS if folder != ".ci")}


@pytest.mark.parametrize("readme", READMES)
def test_paths_exist(readme):
    missing = []
    for name, path in named(PATH, ["bash"]):
        place = in_repository(name, path) if name == readme and path not in GROUPS else None
        if place is not None and "NAME" not in path and not any(place.parent.glob(place.name or "*")):
            missing.append(path)
    assert not missing


@pytest.mark.parametrize("readme", READMES)
def test_files_named_without_a_folder_exist(readme):
    """`loop.py` in hpc_saidpo/README.md is hpc_saidpo/loop.py; elsewhere such a name is some file of the checkout."""
    spans = {m[0] for text in code_of(readme) for m in re.finditer(r"^[a-z]\w*\.(py|sh|sbatch|def)$", text)}
    assert not [span for span in spans if not any(HOME.glob(f"[!.]*/**/{span}"))]


@pytest.mark.parametrize("readme", READMES)
def test_links_lead_somewhere(readme):
    text = re.sub(r"```.*?```", "", (HOME / readme).read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        place = (HOME / readme).parent / path if path else HOME / readme
        if "://" not in target and (not place.exists() or (anchor and anchor not in anchors(place))):
            broken.append(target)
    assert not broken


@functools.cache
def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_settings_exist():
    wrong = []
    for readme, key in named(KEY):
        if key.rpartition(".")[2] in ENDINGS or key in NOT_KEYS:
            continue
        try:
            check_key(key)
        except RunError as error:
            wrong.append(f"{readme}: {error}")
    assert not wrong


@pytest.mark.parametrize("group", GROUPS)
def test_files_of_groups_exist(group):
    pattern = re.compile(rf"(?<![\w./])(?:hpc_saidpo )?{group}=\[?([a-z_0-9]+(?:,[a-z_0-9]+)*)\]?(?![\w/.])")
    found = {name for _, text in named(pattern) for name in pattern.fullmatch(text)[1].split(",")}
    assert found <= set(options_of(group))
    assert found


def test_verbs_exist():
    pattern = re.compile(r"(?:hpc-saidpo|-m hpc_saidpo) ([a-z]\w*)(?=\s|$)")
    found = {pattern.fullmatch(text)[1] for _, text in named(pattern)}
    assert found <= set(VERBS)
    text = (HOME / "hpc_saidpo" / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{verb}` |" in text for verb in VERBS)


def test_the_map_has_a_line_for_each_part_of_the_package():
    text = (HOME / "hpc_saidpo" / "README.md").read_text(encoding="utf-8")
    parts = [p for p in (HOME / "hpc_saidpo").iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("[!_]*.*")))]
    names = {f"{p.name}/" if p.is_dir() else p.name for p in parts} - {"__init__.py", "__pycache__/"}
    assert not {name for name in names if f"\n| `{name}` |" not in text}


def test_programs_in_blocks_exist():
    """The first words of the commands: files of the checkout, or programs of the environment and the system."""
    known = {
        "apptainer", "eval", "export", "hpc-saidpo", "mpiexec", "pip", "python", "salloc", "sbatch", "source", "srun",
        "py-spy",
    }  # fmt: skip
    for readme in READMES:
        for word in bash_words(readme):
            assert word in known or word.startswith(".venv/") or (HOME / word).exists(), f"{readme}: {word}"


# conf/README.md: every key with its default


def leaves(hint: object = Settings, path: tuple[str, ...] = ()) -> set[str]:
    """Every setting with its groups, dotted; of a group that has several kinds, those of all kinds.

    A group that is null by default (evaluate.columns) is one setting, whose keys another group describes.
    """
    groups = [] if type(None) in typing.get_args(hint) else groups_in(hint)
    hints = [item for cls in groups for item in typing.get_type_hints(cls, include_extras=True).items()]
    return {leaf for name, inner in hints for leaf in leaves(inner, (*path, name))} if groups else {".".join(path)}


def groups_in(hint: object) -> list[type]:
    """The classes of settings in a type hint: itself, or the members of a union."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return [hint]
    if typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        return [found for argument in typing.get_args(hint) for found in groups_in(argument)]
    return []


def described() -> dict[str, str]:
    """Key -> its cell "default" in conf/README.md."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.*?) \|", (HOME / "conf" / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {key: default for key, default in rows if "." in key}


def test_every_setting_is_described():
    assert leaves() - set(described()) == set()


def test_defaults_are_as_described():
    with initialize_config_dir(str(HOME / "conf"), version_base="1.3"):
        composed = compose("config")
    wrong = []
    for key, cell in described().items():
        value = OmegaConf.select(composed, key, default="not there", throw_on_missing=False)
        if cell == "required":
            group, _, name = key.rpartition(".")
            wrong += [] if OmegaConf.is_missing(OmegaConf.select(composed, group), name) else [key]
        elif cell.startswith("`") and value != "not there" and plain(read(cell.strip("`"))) != plain(value):
            wrong.append(f"{key}: {cell}, but conf/ has {value!r}")
    assert not wrong


def read(cell: str):
    return cell if cell.startswith("{") and cell != "{}" else yaml.safe_load(cell)  # "{question}" is a text here


def plain(value):
    """A value of YAML for comparison: 1 is 1.0, and 5e-07, which YAML takes for a text, is a number."""
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    try:
        return float(value) if not isinstance(value, bool) else value
    except (TypeError, ValueError):
        return value
