"""The folder of one run (see `layout`): its configuration, its lock, its stages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from .. import settings
from ..parallel.world import World
from . import agreement, disk, files, restarts, retention, run_facts, shared, temporaries
from .contents import unfinished
from .hashes import Hashes
from .layout import folder_of, iterations_of
from .life import Life, Work
from .lock import Lock
from .stage import Stage
from .tables import SCHEMA_VERSION

T = TypeVar("T")


class RunDir:
    """The folder of one run. Methods are collective unless their docstring says otherwise.

    Only root writes shared files. As a context manager it holds the run's lock until the end of the context.

    Args:
        facts: attributes of every table of the run.
        report: called on root with messages to the user.
    """

    def __init__(self, path: Path, world: World, facts: dict[str, Any], report: Callable[[str], None]):
        self.path, self.world, self._facts, self._report = Path(path), world, facts, report
        self._lock, self._life = Lock(self.path / "lock"), Life(self.path, world)
        self._hashes = Hashes(self.path.parent / ".hashes.json")
        self._n_starts = 0  # earlier starts of the run; known to root
        self.after_stage: Callable[[str], object] = lambda name: None  # called on every rank for each computed one

    @classmethod
    def open(
        cls,
        config: settings.Run,
        resolved: dict[str, Any],
        env: dict[str, Any],
        world: World,
        report: Callable[[str], None] = print,
        may_differ: tuple[str, ...] = (),
    ) -> RunDir:
        """Create the run's folder, or resume the run in it.

        Args:
            resolved: the whole configuration as plain values.
            env: facts about this start, appended to env.json.
            report: called on root with a message before a wait, and when a damaged artefact is computed again.
            may_differ: keys that may have other values than in the run, besides agreement.MAY_DIFFER.

        Raises:
            RunError: another job uses the run; it was made with another configuration; its folder cannot be written.
        """
        facts = {"run": config.name, "seed": config.seed, "config_hash": agreement.hash_of(resolved, may_differ)}
        run = cls(Path(config.root) / config.name, world, facts, report)
        world.on_root(lambda: run._open_on_root(config, resolved, env, may_differ))
        return run

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._life.end(error)
        if self.world.is_root:
            self._lock.release()

    def _open_on_root(
        self, config: settings.Run, resolved: dict[str, Any], env: dict[str, Any], may_differ: tuple[str, ...]
    ) -> None:
        files.make_folder(self.path)
        self._lock.acquire(self._report)
        try:
            for leftover in unfinished(self.path):  # of killed jobs: no other job writes here now
                temporaries.remove(leftover)
            accept, set_aside = config.accept_changes, self._set_aside_unfinished
            agreement.store_or_compare(self.path, resolved, accept, set_aside, may_differ)
            path = self.path / "env.json"
            starts = run_facts.read_starts(path)
            if env.get("slurm"):
                env = {**env, "newest_result": restarts.newest_result(self.path, self.path.parent / ".shared")}
                restarts.check_progress(starts, env)
            self._n_starts = len(starts)
            files.write_text(path, json.dumps([*starts, env], indent=1))
            self._life.start(resolved.get("loop", {}).get("iterations", 0))
        except BaseException:
            self._lock.release()
            raise

    def _set_aside_unfinished(self) -> None:
        """Rename the results of the old configuration that no finished iteration builds on.

        These are the unfinished iterations, and the evaluation before the first iteration if no iteration is finished.
        """
        base = [] if self.finished_iterations() else [self.path / "base"]
        for folder in [*base, *(folder for _, folder in iterations_of(self.path))]:
            if disk.exists(folder) and not disk.exists(folder / "DONE"):
                files.move(folder, files.old_name(folder))

    def started(self) -> datetime | None:
        """Return the time of the run's first start, from env.json; None if it is not recorded there."""
        return self.world.on_root(lambda: run_facts.first_start(self.path / "env.json"))

    def finished_stage(self, iteration: int | str, name: str) -> Stage:
        """Return a finished stage, to read from it. Not collective.

        Raises:
            Damaged: a file of it is missing.
        """
        stage = self._stage(iteration, name)
        stage.check_complete()
        return stage

    def log_path(self) -> Path:
        """Return this rank's log file: each start of the run has a folder, and each rank a file in it. Collective."""
        folder = self.path / "log" / f"start-{self.world.bcast(self._n_starts):03d}"
        files.make_folder(folder)
        return folder / f"rank-{self.world.rank:04d}.log"

    def stage(
        self,
        iteration: int | str,
        name: str,
        compute: Callable[[Stage], None],
        load: Callable[[Stage], T],
        **facts: str | Callable[[], str],
    ) -> T:
        """Load a finished stage, or compute it, mark it as done and load it. Every stage resumes in this way.

        The result always comes from disk, so a resumed run reads exactly the same values as an uninterrupted one.

        Args:
            iteration: the number of the iteration, or "base" for stages before the first one.
            compute: writes the stage's files; called on every rank.
            load: called on root; its result is broadcast to every rank.
            facts: further attributes of the stage's tables (policy_hash). A function is called on root, and only if
                the stage is not done.
        """
        stage = self._stage(iteration, name)

        def load_on_root() -> T:
            stage.check_complete((SCHEMA_VERSION,))  # a run that resumes needs all that this version stores
            return load(stage)

        with self._life.working(f"{folder_of(iteration)}/{name}"):
            if is_new := not self.world.on_root(lambda: stage.done):
                self._compute(stage, compute, facts)
            result = self.world.on_root(load_on_root)
        if is_new:
            self.after_stage(name)
        return result

    def _compute(
        self, stage: Stage, compute: Callable[[Stage], None], facts: Mapping[str, str | Callable[[], str]]
    ) -> None:
        self.world.stop_if_requested()
        stage.facts |= self.world.on_root(lambda: {key: f if isinstance(f, str) else f() for key, f in facts.items()})
        self.world.on_root(stage.prepare)
        compute(stage)
        self.world.barrier()
        self.world.on_root(lambda: self._mark_done(stage))

    def _mark_done(self, stage: Stage) -> None:
        self._lock.check()
        stage.mark_done()

    def shared(
        self,
        name: str,
        key: str,
        compute: Callable[[Stage], None],
        load: Callable[[Stage], T],
        resumes: bool = False,
    ) -> T:
        """Load or compute an artefact of the pool or the model, as `stage` does; it is shared by all runs.

        It is stored beside the runs, keyed by its content. If several jobs need it at the same time, one computes it
        and the others wait. A damaged artefact is set aside and computed again.

        Args:
            name, key: identify the artefact.
            compute: called on every rank with a folder that appears complete or not at all. A failure must be raised on
                every rank (`World.on_root`, `World.spread`).
            load: see `stage`.
            resumes: let `compute` continue in the folder of a job that was stopped or killed. False: it starts with an
                empty folder.
        """
        self.world.stop_if_requested()
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        path = self.path.parent / ".shared" / f"{name}-{digest}"

        def report(message: str) -> None:
            self._life.waits(message)
            self._report(message)

        def begin(stage: Stage) -> None:
            self._life.waits("")
            compute(stage)

        with self._life.working(name):
            return shared.load_or_compute(path, self.world, report, begin, load, resumes)

    def work(self) -> dict[str, tuple[float, Work]]:
        """Return the seconds of every stage, and the work of each rank in it. Not collective: for root."""
        return self._life.work()

    def note_end(self, message: str) -> None:
        """Note why this start ends before the last iteration, for `hpc-saidpo status`; "": it does not."""
        self._life.note_end(message)

    def shared_before(self, name: str) -> list[Stage]:
        """Return the finished artefacts of a name, with any key, newest first. Not collective."""
        return shared.finished(self.path.parent / ".shared", name)

    def sha256s(self, paths: Sequence[Path]) -> list[str]:
        """Return the SHA-256 of each file. A file that a manifest lists, or that has not changed, is not read.

        Not collective: root only.

        Raises:
            OSError: there is no such file.
        """
        return self._hashes.of(paths)

    def require_same(self, name: str, facts: dict[str, Any], remedy: str, accept: bool = False) -> None:
        """Store facts about the run in <name>.json; refuse to resume it with other facts. Collective.

        Args:
            remedy: end of the error message.
            accept: resume with other facts nevertheless (run.accept_changes).

        Raises:
            RunError: the run was begun with other facts. The message shows both, and the remedy.
        """
        self.world.on_root(lambda: run_facts.require_same(self.path / f"{name}.json", facts, remedy, accept))

    def keep(self, name: str, key: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a fact about the run. It is computed once, on root, and kept in <name>.json under its key. Collective.

        Args:
            compute: returns plain values.
        """
        return self.world.on_root(lambda: run_facts.keep(self.path / f"{name}.json", key, compute))

    @property
    def config_hash(self) -> str:
        """The hash of the present configuration, as in the attributes of every table."""
        return self._facts["config_hash"]

    def finish_iteration(self, iteration: int, metrics: dict[str, Any]) -> dict[str, Any]:
        """Store an iteration's metrics and mark it as done. metrics.jsonl holds one line per finished iteration.

        Returns:
            The iteration's record on disk. If the iteration was already finished, this is the earlier record, with the
            configuration of that time.
        """

        def finish() -> dict[str, Any]:
            stage = self._stage(iteration, "")
            if not stage.done:
                self._lock.check()
                stage.prepare()
                stage.write_json("metrics", metrics)
                files.write_text(stage.path / "DONE", "")
            records = [run_facts.read_figures(folder) for folder in self.finished_iterations()]
            files.write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in records))
            return run_facts.read_figures(stage.path)

        return self.world.on_root(finish)

    def remove_policies(self, keep: Literal["all", "last", "best"]) -> list[int]:
        """Remove old policies (`retention.remove_policies`); return their iterations. Collective."""
        return self.world.on_root(lambda: retention.remove_policies(self.path, keep))

    def has_finished(self, iteration: int | str) -> bool:
        """Whether an iteration is finished."""
        return self.world.on_root(lambda: self._stage(iteration, "").done)

    def finished_iterations(self) -> list[Path]:
        """Return the folders of the finished iterations, in order. Not collective."""
        return [folder for _, folder in iterations_of(self.path) if disk.exists(folder / "DONE")]

    def write_report(self, contents: dict[str, str | bytes]) -> None:
        """Write the files of the report to the run folder. Not collective: root only."""
        for name, content in contents.items():
            files.write_bytes(self.path / name, content.encode() if isinstance(content, str) else content)

    def _stage(self, iteration: int | str, name: str) -> Stage:
        where = {"iteration": -1 if isinstance(iteration, str) else iteration, "stage": name}
        return Stage(self.path / folder_of(iteration) / name, {**self._facts, **where})
