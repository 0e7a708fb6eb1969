"""The configuration tree: each module's Config, checked; YAML or overrides in, frozen values out."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError

from . import clusters, difficulty, dpo, evaluate, loop, pairs, policy, pool, probe, rollouts, sampler, store, tags
from .records import RunError, settings


@settings()
class Config:
    """Everything a run depends on; group x of conf/ is module x's Config (`run` is the store's)."""

    run: store.Config
    loop: loop.Config
    pool: pool.Config
    tags: tags.Config
    clusters: clusters.Config
    policy: policy.Config
    rollouts: rollouts.Config
    probe: probe.Config
    difficulty: difficulty.Config
    sampler: sampler.Config
    pairs: pairs.Config
    dpo: dpo.Config
    evaluate: evaluate.Config

    def __post_init__(self):
        if self.run.deterministic and self.dpo.strategy == "fsdp":
            raise ValueError(
                "run.deterministic=true asks for the same weights on any number of ranks, bit for bit, which "
                "dpo.strategy=fsdp cannot give: use ddp or single, or run.deterministic=false"
            )
        if self.tags.mode == "export" and self.clusters.n == 1:
            raise ValueError("tags.mode=export has nothing to write: with clusters.n=1 no knowledge points are needed")


@settings()
class Evaluation:
    """Everything a stand-alone evaluation depends on: of a pool, what it needs for few-shot examples and held_out."""

    run: store.Config
    loop: loop.Config
    policy: policy.Config
    rollouts: rollouts.Config
    evaluate: evaluate.Config
    pool: pool.Config | None


KINDS = {cls.kind for cls in typing.get_args(typing.get_args(pool.Config)[0])}


def conf_folder() -> Path:
    """Where the YAML files lie: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "conf"


def from_overrides(overrides: Sequence[str]) -> Config:
    """The configuration that a start with these overrides would have; for tools.

    Raises:
        RunError: a key, a value or a group is wrong, or missing.
    """
    check_overrides(overrides)
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
    except HydraException as error:
        raise RunError(f"configuration: {error}") from error
    return build(composed)[0]


def build(composed: DictConfig, tree: type = Config) -> tuple[Config | Evaluation, dict]:
    """The checked configuration, and the same as plain values for config.yaml.

    Args:
        tree: Config or Evaluation; of what is composed, only its groups are looked at.

    Raises:
        RunError: missing, unknown, mistyped or out-of-range keys; all of them named, with what is valid.
    """
    composed = OmegaConf.masked_copy(composed, [f.name for f in dataclasses.fields(tree) if f.name in composed])
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise RunError(
            f"must be given: {', '.join(missing)} (for example {missing[0]}=...; or choose experiment=demo, which "
            "gives everything)"
        )
    plain = OmegaConf.to_container(composed, resolve=True)
    try:
        return TypeAdapter(tree).validate_python(plain), plain
    except ValidationError as error:
        raise RunError("configuration:\n" + "\n".join(_explain(e) for e in error.errors())) from None


def check_overrides(arguments: Iterable[str]) -> None:
    """Refuse command-line keys that do not exist, before Hydra composes anything.

    Raises:
        RunError: names the key, the nearest valid one, and all valid ones beside it.
    """
    parser = OverridesParser.create()
    for argument in arguments:
        if "=" not in argument or argument.startswith(("-", "+", "~")):
            continue
        try:
            key = parser.parse_overrides([argument])[0].key_or_group
        except OverrideParseException as error:
            raise RunError(f"cannot read {argument!r}: {error}") from None
        if not key.startswith("hydra") and "/" not in key:
            _check_key(key)


def _check_key(key: str) -> None:
    parts = key.split(".")
    for depth, part in enumerate(parts):
        valid = fields_at(parts[:depth])
        if depth == 0:
            valid = [*valid, "experiment", "sweep"]
        # Names in a mapping are free, and what is below a plain value is for the type check.
        if valid and part not in valid:
            raise RunError(_unknown(parts[: depth + 1], valid))


def fields_at(path: Iterable[str], kind: str | None = None) -> list[str]:
    """Names of the settings under a path such as ["rollouts", "prompt"]; empty where there are none.

    Args:
        kind: where a group comes in several kinds (`pool`), the one that is meant; None means all of them.
    """
    hints = [Config]
    for part in path:
        hints = [inner for hint in hints for inner in _below(hint, part)]
    found = [cls for hint in hints for cls in _dataclasses(hint)]
    meant = [cls for cls in found if kind is None or getattr(cls, "kind", kind) == kind]
    return list(dict.fromkeys(f.name for cls in meant for f in dataclasses.fields(cls)))


def _below(hint, part: str) -> list:
    """The type hints of a part of what has this type hint."""
    if typing.get_origin(hint) is dict:  # by name: evaluate.known.math500
        return [typing.get_args(hint)[1]]
    return [typing.get_type_hints(cls, include_extras=True).get(part) for cls in _dataclasses(hint)]


def _dataclasses(hint) -> list[type]:
    """The dataclasses in a type hint: itself, or the members of a union."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    if typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        return [found for argument in typing.get_args(hint) for found in _dataclasses(argument)]
    return []


def _explain(error: Mapping) -> str:
    # In a group of several kinds, the kind stands second in the location: pool, files, path.
    kind = str(error["loc"][1]) if len(error["loc"]) > 1 and error["loc"][1] in KINDS else None
    parts = [str(part) for i, part in enumerate(error["loc"]) if not (i == 1 and kind)]
    path = [part for part in parts if not re.search(r"^constrained-|\[", part)]  # which of several types was tried
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return "  " + _unknown(path, fields_at(path[:-1], kind))
    if error["type"] in ("missing", "missing_argument"):
        return f"  {key} must be given"
    got = "" if isinstance(error["input"], Mapping) else f" (got {error['input']!r})"
    return "  " + f"{key}: " * bool(key) + error["msg"].removeprefix("Value error, ") + got


def _unknown(path: list[str], valid: list[str]) -> str:
    near = difflib.get_close_matches(path[-1], valid, n=1)
    hint = f"; did you mean {'.'.join([*path[:-1], near[0]])!r}?" if near else "."
    where = f"of {'.'.join(path[:-1])}" if path[:-1] else "at the top"
    return f"unknown key {'.'.join(path)!r}{hint} Valid keys {where}: {', '.join(valid)}"
