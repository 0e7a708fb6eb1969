"""The folder of one run (see `layout`): its configuration, its lock, its stages."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from .. import settings
from ..errors import RunError
from ..parallel.world import World
from . import agreement, files, shared
from .layout import folder_of, iterations_of
from .lock import Lock
from .stage import Stage


class RunDir:
    """One run's folder. Methods are collective unless they say otherwise; only root touches shared files.

    A context: it holds the run's lock until it is left.
    """

    def __init__(self, path: Path, world: World, facts: dict, tell: Callable[[str], None]):
        self.path, self.world, self._facts, self._tell = Path(path), world, facts, tell
        self._lock = Lock(self.path / "lock")

    @classmethod
    def open(
        cls,
        config: settings.Run,
        resolved: dict,
        env: dict,
        world: World,
        tell: Callable[[str], None] = print,
        may_differ: tuple[str, ...] = (),
    ) -> RunDir:
        """Create the run's folder, or go on in it.

        Args:
            resolved: the whole configuration as plain values.
            env: facts about this start, appended to env.json.
            tell: told on root, in words, what has to be waited for or made again.
            may_differ: keys that may have other values than in the run, besides agreement.MAY_DIFFER.

        Raises:
            RunError: another job has it open; it was made with another configuration; it cannot be written.
        """
        facts = {"run": config.name, "seed": config.seed, "config_hash": agreement.hash_of(resolved, may_differ)}
        run = cls(Path(config.root) / config.name, world, facts, tell)
        world.on_root(lambda: run._open_on_root(config, resolved, env, may_differ))
        return run

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_):
        if self.world.is_root:
            self._lock.release()

    def _open_on_root(self, config, resolved, env, may_differ):
        files.make_folder(self.path)
        self._lock.acquire(self._tell)
        try:
            files.remove_temporaries(self.path)  # nobody else writes here: a killed job left them
            agreement.settle(self.path, resolved, config.accept_changes, self._set_aside_unfinished, may_differ)
            starts = self.path / "env.json"
            files.write_text(starts, json.dumps([*(files.parsed(starts, json.loads) or []), env], indent=1))
        except BaseException:
            self._lock.release()
            raise

    def _set_aside_unfinished(self):
        """Keep, under another name, what belongs to the old configuration: iterations that did not finish, and the
        evaluation before the first one unless an iteration has built on it."""
        base = [] if self.finished_iterations() else [self.path / "base"]
        for folder in [*base, *(folder for _, folder in iterations_of(self.path))]:
            if folder.exists() and not (folder / "DONE").exists():
                os.replace(folder, files.old_name(folder))

    def log_path(self) -> Path:
        """Where this rank logs. Not collective: a file of its own on every rank."""
        folder = self.path / "log"
        files.make_folder(folder)
        return folder / f"rank-{self.world.rank:04d}.log"

    def stage(
        self,
        iteration: int | str,
        name: str,
        compute: Callable[[Stage], None],
        load: Callable[[Stage], object],
        **facts: str,
    ):
        """The only resume idiom: if the stage is done, load it; otherwise compute it, mark it done, load it.

        What is returned always comes from disk, so a resumed run sees exactly what an uninterrupted one sees.

        Args:
            iteration: its number, or "base" for what comes before the first.
            compute: writes the stage's files; called on every rank.
            load: called on root, its result given to every rank.
            facts: what else the attributes of the stage's tables shall tell (policy_hash).
        """
        stage = self._stage(iteration, name, facts)
        if not self.world.on_root(lambda: stage.done):
            self.world.stop_if_told()
            self.world.on_root(stage.prepare)
            compute(stage)
            self.world.barrier()
            self.world.on_root(lambda: self._mark_done(stage))

        def on_root():
            stage.check_complete()
            return load(stage)

        return self.world.on_root(on_root)

    def _mark_done(self, stage):
        self._lock.check()
        stage.mark_done()

    def shared(
        self,
        name: str,
        key: str,
        compute: Callable[[Stage], None],
        load: Callable[[Stage], object],
        resumes: bool = False,
    ):
        """Like `stage`, for an artefact of the pool or the model: beside the runs, keyed by content.

        Of several jobs that need it at the same moment one makes it, and the others wait. `compute` is called on every
        rank, with a folder that appears whole or not at all. One that is damaged is set aside and made again. What
        `compute` raises it must raise on every rank (`World.on_root`, `World.spread`).

        Args:
            resumes: what a job wrote that was stopped or killed is in the folder when the next one calls `compute`;
                else it is empty.
        """
        self.world.stop_if_told()
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        path = self.path.parent / ".shared" / f"{name}-{digest}"
        return shared.use_or_make(path, self.world, self._tell, compute, load, resumes)

    def shared_before(self, name: str) -> list[Stage]:
        """The finished artefacts that `shared` made under a name with whatever key, newest first. Not collective."""
        named = re.compile(re.escape(name) + r"-[0-9a-f]{16}")
        found = [p for p in (self.path.parent / ".shared").glob(f"{name}-*") if named.fullmatch(p.name)]
        done = [stage for stage in map(Stage, found) if stage.done]
        return sorted(done, key=lambda stage: (stage.path / "DONE").stat().st_mtime_ns, reverse=True)

    def require_same(self, name: str, facts: dict, remedy: str, accept: bool = False) -> None:
        """Note what the run is made with, in <name>.json; it cannot go on with anything else. Collective.

        Args:
            accept: go on with other facts all the same (run.accept_changes).

        Raises:
            RunError: it has begun with other facts; they are told, and the remedy.
        """

        def on_root():
            path = self.path / f"{name}.json"
            known = files.parsed(path, json.loads)
            if known not in (None, facts) and not accept and any(self.path.rglob("*.h5")):
                raise RunError(f"run folder {self.path} was made with another {name} ({known}, now {facts}): {remedy}")
            if known != facts:
                files.write_text(path, json.dumps(facts))

        self.world.on_root(on_root)

    @property
    def config_hash(self) -> str:
        """What the present configuration is known by in all that is written."""
        return self._facts["config_hash"]

    def finish_iteration(self, iteration: int, metrics: dict) -> dict:
        """Record an iteration's metrics and mark it done: metrics.jsonl holds one line per finished iteration.

        Returns:
            Its record on disk: of one that was finished before, the one made then, with the configuration of then.
        """

        def on_root():
            stage = self._stage(iteration, "")
            if not stage.done:
                self._lock.check()
                stage.prepare()
                stage.write_json("metrics", metrics)
                files.write_text(stage.path / "DONE", "")
            records = [Stage(folder).read_json("metrics") for folder in self.finished_iterations()]
            files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
            return stage.read_json("metrics")

        return self.world.on_root(on_root)

    def has_finished(self, iteration: int | str) -> bool:
        """Whether an iteration is done to its end."""
        return self.world.on_root(lambda: self._stage(iteration, "").done)

    def finished_iterations(self) -> list[Path]:
        """Folders of the finished iterations, in order. Not collective."""
        return [folder for _, folder in iterations_of(self.path) if (folder / "DONE").exists()]

    def write_report(self, contents: dict[str, str | bytes]) -> None:
        """Write the report's files into the run folder. Not collective: root only."""
        for name, content in contents.items():
            files.write_bytes(self.path / name, content.encode() if isinstance(content, str) else content)

    def _stage(self, iteration, name, facts=None) -> Stage:
        where = {"iteration": -1 if isinstance(iteration, str) else iteration, "stage": name}
        return Stage(self.path / folder_of(iteration) / name, {**self._facts, **where, **(facts or {})})
