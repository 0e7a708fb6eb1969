"""The runs of a sweep for tools/submit.py: conf/sweep/NAME.yaml, or a file of lines -> the overrides of each run."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hpc_saidpo.cli import compose
from hpc_saidpo.errors import RunError, shown, words_of
from hpc_saidpo.names import as_name
from hpc_saidpo.settings.keys import conf_folder, options_of
from hpc_saidpo.settings.whole import Settings

PLACEHOLDER = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")  # {clusters.n:03}
NOT_PLAIN = re.compile(r"^hydra\b|[/@~+]")  # in keys: what selects a file, adds or deletes


@dataclass(frozen=True)
class Sweep:
    """Runs that differ in a few settings.

    Attributes:
        name: as the user wrote it.
        lines: the overrides of each run, its run.name first; array task i is line i.
        common: the overrides of all runs.
    """

    name: str
    lines: list[list[str]]
    common: list[str]


def read_sweep(name: str, common: Sequence[str]) -> Sweep:
    """A sweep by its name in conf/sweep, or by the path of a file of lines.

    Args:
        common: overrides of all runs. They replace what conf/sweep defines; several values (run.seed=0,1) are swept.

    Raises:
        RunError: neither exists; no run is in it; an override cannot be read.
    """
    common = [_whole(word) for word in common]
    if name in options_of("sweep"):
        return _expanded(name, common)
    path = Path(name)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise RunError(
            f"sweep {shown(name)}: conf/sweep defines no sweep of this name, and as a file: {words_of(error)}. "
            f"Sweeps of conf/sweep: {', '.join(options_of('sweep'))}"
        ) from error
    lines = [*filter(None, map(_words, content.splitlines()))]
    if not lines:
        raise RunError(f"sweep file {shown(path)} has no line with overrides")
    return Sweep(name, lines, list(common))


def _words(line: str) -> list[str]:
    """The overrides of a line. A word that begins with # begins a comment."""
    return [*map(_whole, itertools.takewhile(lambda word: not word.startswith("#"), line.split()))]


def _whole(override: str) -> str:
    """An override with the whole path in place of a ~ that its value begins with."""
    key, equals, value = override.partition("=")
    return f"{key}={Path(value).expanduser()}" if equals and re.match(r"~[\w.-]*(/|$)", value) else override


def _expanded(name: str, common: Sequence[str]) -> Sweep:
    """The runs of conf/sweep/NAME.yaml as Hydra's basic sweeper makes them, all values of one run.seed together."""
    content = yaml.safe_load((conf_folder() / "sweep" / f"{name}.yaml").read_text(encoding="utf-8"))
    if "defaults" in content:
        raise RunError(f"conf/sweep/{name}.yaml has a defaults list, which submit cannot expand: give a file of lines")
    parameters = content.pop("hydra")["sweeper"]["params"]
    naming = content.pop("submit", {})
    fixed = {key: _word(value) for key, value in _flat(content)}
    try:
        parser = OverridesParser.create()
        swept = parser.parse_overrides([f"{key}={value}" for key, value in parameters.items()])
        parsed = parser.parse_overrides(list(common))
    except HydraException as error:
        raise RunError(f"sweep {shown(name)}: {words_of(error)}") from error
    values: dict[str, list[str]] = {}
    for override in (*swept, *parsed):
        if override.is_discrete_sweep():
            values[override.get_key_element()] = [str(value) for value in override.sweep_string_iterator()]
    plain = {o.get_key_element(): o.get_value_element_as_str() for o in parsed if not o.is_sweep_override()}
    values = {key: several for key, several in values.items() if key not in plain}
    fixed = {key: value for key, value in fixed.items() if key not in plain and key not in values}
    lines = []
    for run in _product(values):
        words = [f"run.name={_run_name(naming, {**plain, **fixed, **run}, run)}"]
        seed = [f"run.seed={run['run.seed']}"] if "run.seed" in run else []
        words += [f"{key}={value}" for key, value in {**run, **fixed}.items() if key != "run.seed"] + seed
        lines.append(words)
    kept = [word for word, override in zip(common, parsed, strict=True) if not override.is_sweep_override()]
    return Sweep(name, lines, kept)


def _product(values: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Every combination; the run.seed changes slowest, so that the first tasks hold every value once."""
    first = sorted(values, key=lambda key: key != "run.seed")
    runs: list[dict[str, str]] = [{}]
    for key in first:
        runs = [{**run, key: value} for run in runs for value in values[key]]
    order = list(values)
    yield from ({key: run[key] for key in order} for run in runs)


def _run_name(naming: Mapping, known: Mapping[str, str], varied: Mapping[str, str]) -> str:
    """A run's name by the pattern `submit.name` of the sweep's file, and what varies besides."""
    pattern, labels = naming.get("name", ""), naming.get("labels", {})

    def text(match: re.Match) -> str:
        if match[1] not in known:
            raise RunError(f"submit.name={pattern}: no setting {match[1]} in this sweep")
        value = known[match[1]]
        return labels.get(value) or format(yaml.safe_load(value) if match[2] else value, match[2] or "")

    missing = [f"{key}={value}" for key, value in varied.items() if f"{{{key}" not in pattern]
    name = ",".join([*filter(None, [PLACEHOLDER.sub(text, pattern)]), *missing])
    return as_name(name)


def _flat(content: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The settings of nested mappings by their dotted keys."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _word(value: object) -> str:
    """A value of YAML as the value of an override."""
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if _is_constant(value) else str(value)


def _is_constant(value: object) -> bool:
    return value is None or isinstance(value, bool)


@dataclass
class Composer:
    """Settings of many sets of overrides. Hydra composes each selection of files once; plain values are then replaced.

    Attributes:
        composed: by the overrides that select files.
    """

    composed: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)

    def settings(self, overrides: Sequence[str]) -> tuple[Settings, dict[str, Any]]:
        """The checked settings as `compose.from_overrides` returns them, and as plain values. Raises: the same."""
        compose.check_overrides(overrides)
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        selection = tuple(word for word, override in zip(overrides, parsed, strict=True) if not _is_plain(override))
        try:
            text = copy.deepcopy(self._composed(selection))
            for override in filter(_is_plain, parsed):
                OmegaConf.update(text, override.key_or_group, override.value(), merge=True)
        except (HydraException, OmegaConfBaseException):
            text = compose.composed(overrides)  # reports it in Hydra's words
        return compose.build(text, Settings)

    def _composed(self, selection: tuple[str, ...]) -> DictConfig:
        if selection not in self.composed:
            with initialize_config_dir(str(conf_folder()), version_base="1.3"):
                self.composed[selection] = hydra_compose("config", overrides=list(selection))
        return self.composed[selection]


def _is_plain(override: Override) -> bool:
    """Whether an override only replaces a value: `dpo.lr=1e-6`, not `pool=math` nor `+x=1`."""
    key = override.get_key_element()
    return "." in key and not NOT_PLAIN.search(key) and not override.is_sweep_override()
