"""Check the configuration of a start against the stored one: which keys may change, and the remedy if others do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..errors import RunError, shown
from ..reading import parse_yaml
from . import files

# Keys that change the result of an iteration by rounding at most: a run may resume with other values.
MAY_DIFFER = (
    "run.root", "run.name", "run.threads", "run.device", "run.accept_changes", "run.grace_s", "loop.iterations",
    "loop.stop_after", "loop.on_signature", "loop.keep", "dpo.checkpoint_minutes", "dpo.strategy", "dpo.micro_pairs",
    "dpo.micro_tokens", "dpo.head_tokens", "dpo.checkpointing",
    "tags.endpoint.url", "tags.endpoint.api_key_env", "tags.endpoint.concurrency", "tags.endpoint.per_minute",
    "tags.endpoint.timeout_s", "tags.endpoint.tries", "tags.endpoint.backoff_s", "tags.reply_mib", "run.message_chars",
    "rollouts.grader.reason_chars", "report.tensorboard",
    # They decide which rows are refused; a pool with other rows is refused by its fingerprint.
    *(f"{group}.limits.{name}" for group in ("pool", "evaluate") for name in (
        "line_mib", "json_mib", "columns", "cell_chars", "answer_chars", "alt_answers")),
)  # fmt: skip
# Keys that decide which question an index means: a run can never resume with other values.
MUST_AGREE = ("pool.",)


def store_or_compare(
    run: Path,
    resolved: dict[str, Any],
    accept: bool,
    set_aside_unfinished: Callable[[], None],
    may_differ: tuple[str, ...] = (),
) -> None:
    """Store the configuration of a new run, or compare it with the stored configuration of an existing run.

    Args:
        resolved: the whole configuration as plain values.
        accept: resume with another configuration where possible (run.accept_changes).
        set_aside_unfinished: called before the stored configuration is replaced.
        may_differ: keys whose new value replaces the stored one.

    Raises:
        RunError: the run was made with another configuration. Names the keys and the remedy.
    """
    stored = run / "config.yaml"
    known = files.read_parsed(stored, parse_yaml, dict)
    changes = {} if known is None else differences(known, resolved)
    binding = {key: both for key, both in changes.items() if key not in may_differ}
    if binding and any(run.rglob("*.h5")):  # else there is no result of it yet
        _refuse(run, binding, accept)
        set_aside_unfinished()
        files.write_bytes(files.old_name(stored), stored.read_bytes())
    if changes or known is None:
        files.write_text(stored, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))


def _refuse(run: Path, changes: dict[str, tuple], accept: bool) -> None:
    listed = "\n".join(
        f"  {key}: {shown(repr(old))} in the run, {shown(repr(new))} now" for key, (old, new) in changes.items()
    )
    fatal = [key for key in changes if key.startswith(MUST_AGREE)]
    if accept and not fatal:
        return
    remedy = "start another run with run.name=...,"
    if not fatal:
        remedy += (
            " resume with run.accept_changes=true (finished iterations stay, the unfinished one is set aside and "
            "computed again with the new values),"
        )
    raise RunError(
        f"run folder {shown(run)} was made with another configuration:\n{listed}\n{remedy} or change it back"
    )


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Join the keys of a configuration's groups: {"run": {"seed": 0}} becomes {"run.seed": 0}."""
    if not isinstance(value, dict):
        return {prefix: value}
    names = {key: f"{prefix}.{key}" if prefix else str(key) for key in value}
    return {k: v for key, item in value.items() for k, v in flat(item, names[key]).items()}


def history(run: Path) -> list[dict[str, Any]]:
    """Return the configurations that a run has had, the oldest first; the last one is that of config.yaml."""
    stored = run / "config.yaml"
    read = (files.read_parsed(path, parse_yaml, dict) for path in [*files.old_names(stored), stored])
    return [config for config in read if config]


def differences(stored: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple]:
    """Return the keys whose values differ and bind a run, each with both values."""
    old, new = flat(stored), flat(now)
    keys = [k for k in {**old, **new} if k not in MAY_DIFFER and old.get(k) != new.get(k)]
    return {key: (old.get(key), new.get(key)) for key in keys}


def hash_of(resolved: dict[str, Any], may_differ: tuple[str, ...] = ()) -> str:
    """Return a hash of the configuration without the keys that may differ: 16 hex digits."""
    kept = {key: value for key, value in flat(resolved).items() if key not in (*MAY_DIFFER, *may_differ)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()[:16]
