"""Overrides and the YAML of conf/ -> checked settings."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, overload

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError

from ..errors import RunError, shown, words_of
from ..reading import parse_yaml, read_text
from ..settings.keys import check_key, conf_folder, explain, options_of
from ..settings.pool import VERIFIER_NAMES, Files, ReasoningGym
from ..settings.whole import Evaluation, Settings
from .failures import describe

T = TypeVar("T")
INTERPOLATION = re.compile(r"(\\*)\$\{")
NO_VALUE = ("-m", "--multirun")  # options of Hydra without a value


def from_overrides(overrides: Sequence[str]) -> Settings:
    """Return the settings of a run that starts with these overrides, without a start.

    Raises:
        RunError: a key, a value or a group is wrong, or missing.
    """
    return build(composed(overrides))[0]


def composed(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that these overrides compose, unchecked but for their keys.

    Raises:
        RunError: it cannot be composed.
    """
    check_overrides(overrides)
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return compose("config", overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise RunError(describe(error)) from error


@overload
def build(composed: DictConfig) -> tuple[Settings, dict[str, Any]]: ...
@overload
def build(composed: DictConfig, tree: type[T]) -> tuple[T, dict[str, Any]]: ...
def build(composed: DictConfig, tree: type = Settings) -> tuple[Any, dict[str, Any]]:
    """Return the checked settings, and the same as plain values for config.yaml.

    Args:
        tree: Settings or Evaluation. Other groups of the composed configuration are ignored.

    Raises:
        RunError: missing, unknown, mistyped or out-of-range keys. The message names all of them, and the valid ones.
    """
    composed = OmegaConf.masked_copy(composed, [f.name for f in dataclasses.fields(tree) if f.name in composed])
    try:
        missing = sorted(OmegaConf.missing_keys(composed))
        plain = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        raise RunError(describe(error)) from error
    if missing:
        raise RunError(
            f"must be given: {', '.join(missing)} (for example {missing[0]}=...; or choose experiment=demo, which sets "
            "every key)"
        )
    try:
        settings: Any = TypeAdapter(tree).validate_python(plain)
    except ValidationError as error:
        raise RunError("configuration:\n" + "\n".join(explain(e) for e in error.errors())) from None
    check_names(settings)
    return settings, plain


def read_file(path: Path) -> dict[str, Any]:
    """Return the whole configuration in a file: the config.yaml of a run, or one that tools/submit.py wrote.

    Raises:
        RunError: there is no such file, or it holds no configuration.
    """
    try:
        plain = parse_yaml(read_text(path))
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read the configuration {shown(path)}: {words_of(error)}") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("run"), dict) or "name" not in plain["run"]:
        raise RunError(f"{shown(path)} holds no whole configuration: run.name is missing. A run's config.yaml is one")
    return plain


def as_composed(plain: dict[str, Any]) -> DictConfig:
    """Return plain values as a composed configuration in which no text is an interpolation."""
    return cast(DictConfig, OmegaConf.create(_escaped(plain)))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    # Before ${ OmegaConf reads two backslashes as one, and \${ as the characters ${ themselves.
    return INTERPOLATION.sub(r"\1\1\\${", value) if isinstance(value, str) else value


def check_names(settings: Settings | Evaluation) -> None:
    """Check the settings that name a rule or a verifier; import the user's module if one is named.

    Raises:
        RunError: there is no such name, no such module, or the object is of another kind.
    """
    # Imported here: a wrong key must be reported sooner than these imports take.
    if isinstance(settings, Settings):
        from ..sampler.rules import find_rule

        find_rule(settings.sampler.rule)
    pool = settings.pool
    if isinstance(pool, Files | ReasoningGym) and pool.verifier not in VERIFIER_NAMES:
        from ..grader.verifiers import use_verifier

        use_verifier(pool.verifier)


def _remedy(argument: str) -> str:
    """What to write instead of an override that Hydra cannot read; "" where that is not known."""
    key, _, value = argument.partition("=")
    if value.startswith("~"):
        home = os.path.expanduser(value)
        return f"the shell replaces ~ at the beginning of a word only: write {shown(f'{key}={shlex.quote(home)}')}"
    if re.search(r"[:{}\[\]()',\"#]", value) and '"' not in value:
        quoted = f'{key}="{value}"'
        return f"quote the value, and the whole word for the shell: {shown(shlex.quote(quoted))}"
    return ""


def check_overrides(arguments: Sequence[str]) -> None:
    """Check that the keys on the command line exist, before Hydra composes anything.

    Raises:
        RunError: one does not; the message names the key, the nearest valid key, and all valid keys beside it.
    """
    parser = OverridesParser.create()
    for before, argument in itertools.pairwise(["", *arguments]):
        if argument.startswith(("-", "+", "~")):
            continue
        if "=" not in argument:
            if before in NO_VALUE or not before.startswith("-"):  # else it is the value of an option of Hydra
                raise RunError(f"{shown(repr(argument))} is not an override (KEY=VALUE): write no blanks around the =")
            continue
        if argument.startswith("="):
            raise RunError(f"{shown(repr(f'{before} {argument}'))}: write no blanks around the =, as in rollouts.k=4")
        try:
            override = parser.parse_overrides([argument])[0]
        except (OverrideParseException, HydraException) as error:
            raise RunError(f"cannot read {shown(repr(argument))}: {_remedy(argument) or words_of(error)}") from None
        key = override.key_or_group
        value = override.value()
        names = value if isinstance(value, list) else [value]
        if options_of(key) and not override.is_sweep_override() and not all(isinstance(name, str) for name in names):
            raise RunError(f"{argument!r}: {key} is a group of settings, name one of its files: {options_of(key)}")
        if not key.startswith("hydra") and "/" not in key:
            check_key(key)


def swept_keys(arguments: Sequence[str]) -> set[str]:
    """Return the keys that have several values in checked overrides. The jobs of a multirun differ in these keys."""
    words = [word for word in arguments if "=" in word and not word.startswith("-")]
    parsed = OverridesParser.create().parse_overrides(words)
    return {override.get_key_element().removeprefix("+") for override in parsed if override.is_sweep_override()}
