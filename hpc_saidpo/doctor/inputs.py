"""The files and folders that a configuration reads, and which of them are missing. No network is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .. import settings
from ..clusters.modules import check_modules
from ..errors import RunError, shown, words_of
from ..names import below
from ..policy import locate
from ..pool import columns, sources
from ..reading import parse_json, read_text
from ..settings.pool import compared_benchmarks
from ..settings.whole import Evaluation, Settings

REMEDY = "copy it here from a machine with internet access"


@dataclass(frozen=True)
class Input:
    """One file or folder that a run reads.

    Attributes:
        key, value: the setting that names it, and the value of that setting.
        kind: model, encoder, questions (a file of questions or about them), or pool (files, a folder, a dataset).
        path: its file or folder on this node; "" when there is none.
        problem: a description of the missing part; "" when nothing is missing.
    """

    key: str
    value: str
    kind: str
    path: str
    problem: str


def list_inputs(config: Settings | Evaluation) -> list[Input]:
    """List everything that a run or an evaluation reads, in the order of its use. Not collective."""
    compared = compared_benchmarks(config.pool)
    return [*(_input(*named, config.pool) for named in _named(config)), *list_benchmarks(config.evaluate, compared)]


def list_benchmarks(config: settings.Evaluate, compared: Sequence[str] = ()) -> list[Input]:
    """List the benchmarks that are files.

    Args:
        config: its benchmarks are listed.
        compared: further benchmarks to list, from pool.benchmarks.
    """
    named = [("evaluate.benchmarks", *pair) for pair in zip(config.benchmarks, config.plan().values(), strict=True)]
    named += [("pool.benchmarks", *pair) for pair in zip(compared, config.plan(compared).values(), strict=True)]
    return [_benchmark(key, name, plan.file) for key, name, plan in named if plan.file]


def check(config: Settings | Evaluation) -> None:
    """Refuse to start when an input is missing. Not collective: called on root.

    Raises:
        RunError: an input is missing. The message lists every missing input by its key, and a remedy.
    """
    missing = [i for i in list_inputs(config) if i.problem]
    if missing:
        listed = "\n".join(f"  {i.key}={shown(i.value)}: {shown(i.problem)}" for i in missing)
        raise RunError(
            f"some inputs of this run are missing:\n{listed}\nThe program never downloads anything. Set these keys to "
            "paths that exist on this node, or copy the inputs here from a machine with internet access and set "
            "HF_HOME to the copied Hugging Face cache; `hpc-saidpo doctor` checks them"
        )


def _named(config: Settings | Evaluation) -> Iterator[tuple[str, str, str]]:
    """(key, value, kind) of every input that is no benchmark."""
    if isinstance(config.pool, settings.Files):
        for path in columns.as_tuple(config.pool.path):
            yield "pool.path", path, "pool"
        if config.pool.examples:
            yield "pool.examples", config.pool.examples, "questions"
    if isinstance(config, Settings) and config.clusters.n > 1:
        if config.tags.mode == "model":
            yield "tags.model", config.tags.model, "model"
        for path in config.tags.files if config.tags.mode == "import" else ():
            yield "tags.file", path, "questions"
        if config.tags.mode != "column" and config.tags.skills:
            yield "tags.skills", config.tags.skills, "questions"
        yield "clusters.encoder", config.clusters.encoder, "encoder"
    yield "policy.path", config.policy.path, "model"


def _benchmark(key: str, name: str, file: str) -> Input:
    """The input of a benchmark; `name` may be a short name."""
    located = _input(key, file, "questions")
    problem = located.problem
    if problem and name != file:
        problem = (
            f"no file {file}: put your copy there, or set evaluate.folder (its format: a JSON object per line with "
            "`question` and `answer`, like a pool)"
        )
    return Input(key, name, located.kind, located.path, problem)


def _input(key: str, value: str, kind: str, pool: settings.Pool | None = None) -> Input:
    """Locate one input and look for problems."""
    if kind == "pool" and isinstance(pool, settings.Files):
        return _pool(key, value, pool)
    try:
        path = Path(sources.locate_dataset(value) if kind == "questions" else locate.locate(value))
    except RunError as error:
        return Input(key, value, kind, "", str(error))
    if not path.exists():
        return Input(key, value, kind, "", _absent(value, kind))
    return Input(key, value, kind, str(path), _PROBLEM_OF[kind](path))


def _pool(key: str, value: str, config: settings.Files) -> Input:
    try:
        files = sources.resolve([value], columns.as_tuple(config.files))
    except RunError as error:
        return Input(key, value, "pool", "", str(error).removeprefix(f"{key}={value}: "))
    place = Path(sources.locate_dataset(value))
    return Input(key, value, "pool", str(place if place.exists() else files[0].parent), "")


def _absent(value: str, kind: str) -> str:
    if kind != "questions" and value.count("/") <= 1 and not value.startswith(("/", ".")):
        return f"no such folder, and no model of that name in the local Hub cache ({locate.hub_cache()})"
    return "no such file" if kind == "questions" else "no such folder"


def _questions(path: Path) -> str:
    return "" if path.is_file() else "is not a file"


def _model(path: Path) -> str:
    if locate.is_gguf(str(path)):
        return "" if path.is_file() else "is not a file"
    if not any((path / name).exists() for name in locate.TOKENIZER_FILES):
        return _weights(path) or f"{path} has no tokenizer: tokenizer.save_pretrained(folder) writes one"
    return _weights(path)


def _encoder(path: Path) -> str:
    # sentence-transformers keeps the transformer in the folder itself, or in a subfolder that modules.json names.
    try:
        folders = check_modules(path)
    except RunError as error:
        return str(error)
    return _weights(folders[0] if folders else path)


def _weights(folder: Path) -> str:
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        return (
            f"{folder} is an adapter, and no whole model: merge it into its model (peft: merge_and_unload, then "
            "save_pretrained), or name a run's iter-NNN/policy/model"
        )
    if not (folder / "config.json").exists():
        return f"{folder} has no config.json"
    for index in folder.glob("*.index.json"):
        try:
            shards = set(parse_json(read_text(index))["weight_map"].values())
            lost = sorted(name for name in shards if not below(folder, name).is_file())
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            return f"{index} is damaged ({words_of(error)})"
        if lost:
            return f"{folder} lacks {', '.join(lost[:3])}{' ...' if len(lost) > 3 else ''} of {len(shards)} files"
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return f"{folder} has no weights (*.safetensors or *.bin)"
    return next(filter(None, map(_damage, sorted(folder.glob("*.safetensors")))), "")


def _damage(file: Path) -> str:
    """The damage of a file of weights, as far as its header and its size show it; the weights are not read."""
    if not file.is_file():
        return f"{file} is no ordinary file"
    try:
        with safe_open(file, framework="numpy"):
            return ""
    except (SafetensorError, OSError) as error:
        return f"{file} is damaged ({words_of(error)}): copy it again"


_PROBLEM_OF: dict[str, Callable[[Path], str]] = {"model": _model, "encoder": _encoder, "questions": _questions}
