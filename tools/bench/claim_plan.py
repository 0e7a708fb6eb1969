"""The trials that bench_claim needs, in the order of their use: tuning by halving, then reporting.

Tuning chooses each system's learning rate, epochs and pairs per step on each pool, on seeds of its own: all 12 choices
on the first seed, the best 4 of them on a second, the best 2 on a third. Tuning uses no reporting seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from claim_trials import KERNEL, Setup, Training, Trial

GRID = [Training(*values) for values in itertools.product((3e-5, 1e-4, 3e-4), (1, 4), (8, 32))]
REAL_GRID = tuple(Training(lr, 1, 8) for lr in (3e-6, 1e-5, 3e-5, 1e-4))  # of the real language model
KEEP = (12, 4, 2)  # choices that are tried on the first, second and third tuning seed
# Two steps beyond the choices that were best, and these: has the comparison each system at its best?
BEYOND = [Training(lr, epochs, pairs) for lr, epochs in ((1e-5, 4), (3e-5, 4), (3e-5, 8)) for pairs in (8, 32)]
MOST_BESIDE = 1e-4  # learning rate of the systems in BESIDE: a larger one destroyed the policy of the others
FIRST_TUNING_SEED = 100
MAIN_POOLS = ("85/10/5", "10/50/40")  # of the headlines; the rules are compared on a third one, too
BASELINE, PUBLISHED, OURS = "IDPO", "published", "ours"


@dataclass(frozen=True)
class System:
    """A system: a configuration, further settings, and the system whose training settings it uses ("": it is tuned)."""

    experiment: str
    overrides: tuple[str, ...] = ()
    trained_as: str = ""
    probe_share: float = 1.0


# The paper's set-ups pair the hardest half of the questions; here the choice of questions alone differs.
SYSTEMS = {
    BASELINE: System("idpo"),
    PUBLISHED: System("saidpo", ("pairs.share=1",)),
    OURS: System(""),
}
# Other forms of ours, for the choice of the default values on tuning seeds.
FORMS = {
    "ours, tempered": System("", ("sampler.temper=true",), OURS),
    "ours, alpha 1": System("", ("sampler.alpha=1",), OURS),
    "frontier, tempered": System("", ("sampler.rule=frontier", "sampler.temper=true"), OURS),
    "ours, a quarter of the probe": System("", (), OURS, 0.25),
}
UNPROBED, UNIFORM_ADAPTIVE = "IDPO, no probe", "IDPO, adaptive"
ADAPTIVE, SIMILAR, BOTH = "ours, adaptive", "ours, kernel", "ours, kernel, adaptive"
_WAVES = ("rollouts.adaptive=true", "rollouts.waves=[2,2,2,2]", "rollouts.min_chance=0.08")
BESIDE = {
    UNPROBED: System("idpo", (), BASELINE, 0.005),
    UNIFORM_ADAPTIVE: System("idpo", _WAVES, "", 0.005),
    ADAPTIVE: System("", _WAVES),
    SIMILAR: System("", (KERNEL,)),
    BOTH: System("", (KERNEL, *_WAVES)),
}
# Other rules than that of OURS, with equal settings of the sampler and of the training.
RULES = {
    rule: System("", (f"sampler.rule={rule}",), OURS)
    for rule in (
        "error", "frontier", "variance", "deviation", "infogain", "thompson", "zero_variance", "error_all",
    )
}  # fmt: skip
Gain = Callable[[Trial], float]


class Unfinished(Exception):
    """Trials are needed before the plan can go on.

    Attributes:
        trials: those that can be made now.
    """

    def __init__(self, trials: Sequence[Trial]):
        super().__init__(f"{len(trials)} trials are needed first")
        self.trials = list(trials)


@dataclass(frozen=True)
class Plan:
    """The trials of a comparison.

    Attributes:
        gain: points that a trial gained; KeyError if it has not been made.
        seeds: number of reporting seeds.
        pools: of the tuning and the headlines; of the first most is too hard, of the second half is of use.
        third: a further pool, of the comparison of rules.
        beside: further systems of the headlines.
        first_seed: the first reporting seed.
        more: the choices of `beyond`.
    """

    gain: Gain
    setup: Setup
    seeds: int
    grid: Sequence[Training] = tuple(GRID)
    keep: Sequence[int] = KEEP
    pools: Sequence[str] = MAIN_POOLS
    third: str = "70/15/15"
    beside: Sequence[str] = tuple(BESIDE)
    first_seed: int = 0
    more: Sequence[Training] = tuple(BEYOND)

    @property
    def reporting(self) -> range:
        """The reporting seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def trial(self, pool: str, name: str, seed: int, training: Training | None = None, n: int | None = None) -> Trial:
        """A trial of a system, by default with its best training settings. Raises Unfinished."""
        system = ALL[name]
        training = training or self.best(pool, system.trained_as or name)
        curve_samples = self.setup.curve_samples if seed < FIRST_TUNING_SEED else 0
        probe = max(1, round(self.setup.probe * system.probe_share))
        setup = replace(self.setup, probe=probe, curve_samples=curve_samples)
        return Trial(pool, name, system.experiment, seed, training, setup, system.overrides, n)

    def best(self, pool: str, name: str) -> Training:
        """The training settings with the largest gain, mean over the tuning seeds. Raises Unfinished."""
        choices, gains = [c for c in self.grid if name in SYSTEMS or c.lr <= MOST_BESIDE], {}
        if len(choices) == 1:
            return choices[0]
        for i, n in enumerate(self.keep):
            choices = sorted(choices, key=lambda c: -np.mean(gains.get(c, [0.0])))[:n]
            trials = [self.trial(pool, name, FIRST_TUNING_SEED + i, choice) for choice in choices]
            for choice, gain in zip(choices, self.gains(trials), strict=True):
                gains.setdefault(choice, []).append(gain)
        return max(choices, key=lambda c: np.mean(gains[c]))

    def gains(self, trials: Sequence[Trial]) -> list[float]:
        """Points that the trials gained. Raises Unfinished."""
        found, needed = [], []
        for trial in trials:
            try:
                found.append(self.gain(trial))
            except KeyError:
                needed.append(trial)
        if needed:
            raise Unfinished(needed)
        return found

    def tuning(self) -> Iterator[Trial]:
        """The systems' tuning, all that can be made now; nothing once it is complete."""
        tuned = [*SYSTEMS, *(name for name in self.beside if not BESIDE[name].trained_as)]
        for name, pool in itertools.product(tuned, self.pools):
            try:
                self.best(pool, name)
            except Unfinished as unfinished:
                yield from unfinished.trials

    def forms(self) -> list[Trial]:
        """Other forms of ours on the tuning seeds. Raises Unfinished."""
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + len(self.keep))
        names = [OURS, "frontier", *FORMS]
        return [self.trial(p, name, s) for s, p, name in itertools.product(seeds, self.pools, names)]

    def beyond(self) -> list[Trial]:
        """The main systems with fewer and more steps than the choices of the tuning, on its first seed."""
        places = itertools.product(self.pools, SYSTEMS, self.more)
        return [self.trial(pool, name, FIRST_TUNING_SEED, training) for pool, name, training in places]

    def headlines(self) -> list[Trial]:
        """Each system at its best on the reporting seeds. Raises Unfinished."""
        if needed := list(self.tuning()):  # of all systems, so that many can be made at a time
            raise Unfinished(needed)
        names = [*SYSTEMS, *self.beside]
        return [self.trial(p, name, s) for s, p, name in itertools.product(self.reporting, self.pools, names)]

    def rules(self) -> list[Trial]:
        """The rules beside IDPO with equal settings on three pools. Raises Unfinished."""
        of_third = {name: self.best(self.pools[0], name) for name in (BASELINE, OURS)}
        pools, names = (*self.pools, self.third), [BASELINE, OURS, *RULES]

        def one(pool: str, name: str, seed: int) -> Trial:
            training = of_third[BASELINE if name == BASELINE else OURS] if pool == self.third else None
            return self.trial(pool, name, seed, training)

        return [one(p, name, s) for s, p, name in itertools.product(self.reporting, pools, names)]

    def clusters(self, numbers: Sequence[int]) -> list[Trial]:
        """Ours with several numbers of clusters on the first pool. Raises Unfinished."""
        return [self.trial(self.pools[0], OURS, s, n=n) for s, n in itertools.product(self.reporting, numbers)]


ALL = {**SYSTEMS, **FORMS, **BESIDE, **RULES}
