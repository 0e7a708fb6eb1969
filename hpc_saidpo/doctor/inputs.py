"""What a configuration reads from disk, and what of it is not there: nothing may be looked for on a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import settings
from ..errors import RunError
from ..policy import locate
from ..pool import columns, sources

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


@dataclass(frozen=True)
class Input:
    """One thing that a run reads.

    Attributes:
        key, value: the setting that names it, and what it is set to.
        kind: model, encoder, questions (a file, of questions or about them), or pool (files, a folder, a dataset).
        path: the file or folder it lies in; "" when there is none.
        problem: what is missing, in words; "" when nothing is.
    """

    key: str
    value: str
    kind: str
    path: str
    problem: str


def of(config) -> list[Input]:
    """Everything that a run with this configuration reads, in the order of its use. Not collective."""
    return [*(_look(*wanted, config) for wanted in _wanted(config)), *benchmarks_of(config.evaluate, _avoided(config))]


def _avoided(config) -> Sequence[str]:
    is_compared = config.pool and config.pool.kind == "files" and config.pool.decontaminate
    return config.pool.benchmarks if is_compared else ()


def benchmarks_of(config: settings.Evaluate, also: Sequence[str] = ()) -> list[Input]:
    """The benchmarks that are files: those of evaluate.benchmarks, and `also` those of pool.benchmarks."""
    asked = [("evaluate.benchmarks", *own) for own in zip(config.benchmarks, config.plan().values(), strict=True)]
    asked += [("pool.benchmarks", *own) for own in zip(also, config.plan(also).values(), strict=True)]
    return [_look_for_benchmark(key, name, how.file) for key, name, how in asked if how.file]


def check(config) -> None:
    """Refuse to start without what a run reads. Not collective: called on root.

    Raises:
        RunError: something is missing; names all of it, by key, and what to do.
    """
    missing = [i for i in of(config) if i.problem]
    if missing:
        listed = "\n".join(f"  {i.key}={i.value}: {i.problem}" for i in missing)
        raise RunError(
            f"not everything that this run reads is here:\n{listed}\nNothing is looked for on the network. Give paths "
            "that exist on this node, or collect it all with tools/bundle.sh where there is internet and set HF_HOME "
            "to its huggingface folder; tools/doctor.py checks it"
        )


def _wanted(config) -> Iterator[tuple[str, str, str]]:
    if config.pool and config.pool.kind == "files":
        for path in columns.as_tuple(config.pool.path):
            yield "pool.path", path, "pool"
        if config.pool.examples:
            yield "pool.examples", config.pool.examples, "questions"
    if hasattr(config, "clusters") and config.clusters.n > 1:  # a stand-alone evaluation has none
        if config.tags.mode == "model":
            yield "tags.model", config.tags.model, "model"
        for path in config.tags.files if config.tags.mode == "import" else ():
            yield "tags.file", path, "questions"
        if config.tags.mode != "column" and config.tags.skills:
            yield "tags.skills", config.tags.skills, "questions"
        yield "clusters.encoder", config.clusters.encoder, "encoder"
    yield "policy.path", config.policy.path, "model"


def _look_for_benchmark(key: str, name: str, file: str) -> Input:
    found = _look(key, file, "questions")
    problem = found.problem
    if problem and name != file:
        problem = f"no file {file}: put your copy there, or set evaluate.folder (its format: README, Benchmarks)"
    return Input(found.key, name, found.kind, found.path, problem)


def _look(key: str, value: str, kind: str, config=None) -> Input:
    if kind == "pool":
        return _pool(key, value, config.pool)
    try:
        path = Path(sources.locate_dataset(value) if kind == "questions" else locate.locate(value))
    except RunError as error:
        return Input(key, value, kind, "", str(error))
    if not path.exists():
        return Input(key, value, kind, "", _absent(value, kind))
    return Input(key, value, kind, str(path), _PROBLEM_OF[kind](path))


def _pool(key: str, value: str, config: settings.Files) -> Input:
    try:
        found = sources.resolve([value], columns.as_tuple(config.files))
    except RunError as error:
        return Input(key, value, "pool", "", str(error).removeprefix(f"{key}={value}: "))
    place = Path(sources.locate_dataset(value))
    return Input(key, value, "pool", str(place if place.exists() else found[0].parent), "")


def _absent(value: str, kind: str) -> str:
    if kind != "questions" and value.count("/") <= 1 and not value.startswith(("/", ".")):
        return f"no such folder, and no model of that name in the local Hub cache ({locate.hub_cache()})"
    return "no such file" if kind == "questions" else "no such folder"


def _questions(path: Path) -> str:
    return "" if path.is_file() else "is not a file"


def _model(path: Path) -> str:
    if locate.is_gguf(str(path)):
        return "" if path.is_file() else "is not a file"
    if not any((path / name).exists() for name in _TOKENIZERS):
        return _weights(path) or f"{path} has no tokenizer: tokenizer.save_pretrained(folder) writes one"
    return _weights(path)


def _encoder(path: Path) -> str:
    # sentence-transformers keeps the transformer in the folder itself, or in one that modules.json names.
    modules = path / "modules.json"
    if not modules.exists():
        return _weights(path)
    return _weights(path / json.loads(modules.read_text())[0]["path"])


def _weights(folder: Path) -> str:
    if not (folder / "config.json").exists():
        return f"{folder} has no config.json"
    for index in folder.glob("*.index.json"):
        shards = set(json.loads(index.read_text()).get("weight_map", {}).values())
        lost = sorted(name for name in shards if not (folder / name).exists())
        if lost:
            return f"{folder} lacks {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''} of {len(shards)} files"
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return f"{folder} has no weights (*.safetensors or *.bin)"
    return ""


_PROBLEM_OF: dict[str, Callable[[Path], str]] = {"model": _model, "encoder": _encoder, "questions": _questions}
