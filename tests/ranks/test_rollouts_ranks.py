"""Rollouts over the ranks: the same responses on any number of them, also when a stage resumes."""

from dataclasses import replace

import numpy as np
import pytest
from support.collecting import BARE, QUESTIONS, SAMPLING, collect

from hpc_saidpo import settings
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Rollouts
from hpc_saidpo.rollouts import effort
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.request import Request, load_rollouts
from hpc_saidpo.rollouts.rounds import collect_in_rounds
from hpc_saidpo.rollouts.stage import collect_rollouts
from hpc_saidpo.store.stage import Stage

pytestmark = pytest.mark.mpi


def chunks_of(folder):
    """Chunk file -> its questions and responses."""
    tables = {path.name: Stage(folder).read(path.stem, Rollouts) for path in sorted(folder.glob("chunk-*.h5"))}
    return {name: (table.question_R.tolist(), list(table.text_R)) for name, table in tables.items()}


def test_rollouts_do_not_depend_on_chunks_or_ranks(folder, world, micro):
    by_two, by_five = (collect(folder / str(n), world, micro, n) for n in (2, 5))
    assert by_two.question_R.tolist() == np.repeat(np.arange(9), 3).tolist()
    assert by_two.sample_R.tolist() == [0, 1, 2] * 9
    assert by_two.text_R == by_five.text_R and len(set(by_two.text_R)) > 9
    assert by_two.text_R != collect(folder / "other", world, micro, 2, (1, 0, "probe")).text_R


def test_finished_chunks_are_not_made_again(folder, world, micro):
    first = collect(folder / "run", world, micro, 2, sealed=False)
    texts = list(first.text_R)
    chunks = sorted((folder / "run").glob("chunk-*.h5"))
    assert len(chunks) == 5
    world.barrier()
    world.on_root(chunks[3].unlink)
    made = {p: p.stat().st_mtime_ns for p in chunks if p != chunks[3]}
    again = collect(folder / "run", world, micro, 2, sealed=False)
    assert again.text_R == texts and all(p.stat().st_mtime_ns == t for p, t in made.items())
    world.barrier()
    sealed = collect(folder / "run", world, micro, 2)
    assert sealed.text_R == texts and np.array_equal(sealed.seconds_R, again.seconds_R)
    assert sorted(p.name for p in (folder / "run").iterdir()) == [
        "prompts.h5", "questions.h5", "shard-000000-000004.h5"
    ]  # fmt: skip


def test_a_stage_resumes_with_other_ranks_and_another_order(folder, world, micro):
    """What the run has learned meanwhile, or who is there, changes the order of the chunks and nothing in them."""
    world.on_root(lambda: collect(folder, World(), micro, 2, sealed=False) and None)
    alone = chunks_of(folder)
    world.barrier()
    for i in (0, 2, 3):
        world.on_root((folder / f"chunk-{i:06d}.h5").unlink)
    collect(folder, world, micro, 2, sealed=False, expected={q: 100.0 * q for q in range(9)})
    assert chunks_of(folder) == alone and len(alone) == 5


def test_early_decision_draws_the_same_responses_and_decides_the_same_questions(folder, world, micro):
    fixed = collect(folder / "fixed", world, micro, 4, k=8, seed=(0, 0, "explore"))
    early = collect(folder / "early", world, micro, 4, k=8, seed=(0, 0, "explore"), adaptive=True)
    assert 0 < len(early) < len(fixed) == 72
    both = effort.decided(fixed)
    assert 0 < len(both) < 9  # some questions can give a pair, some cannot
    assert effort.decided(early) == both
    text_of = {(q, s): text for q, s, text in zip(fixed.question_R, fixed.sample_R, fixed.text_R, strict=True)}
    for q in range(9):
        own = early.take(np.flatnonzero(early.question_R == q))
        n = len(own)
        assert own.sample_R.tolist() == list(range(n)) and n in (2, 4, 8)
        assert [text_of[q, s] for s in range(n)] == list(own.text_R)
        before = fixed.take(np.flatnonzero((fixed.question_R == q) & (fixed.sample_R < {2: 0, 4: 2, 8: 4}[n])))
        assert not effort.decided(before)  # it went on because it had to
        assert n == 8 or q in effort.decided(own)  # it ended because it could


def test_abandoned_and_prolonged_questions_are_the_same_on_any_ranks(folder, world, micro):
    seed, prior = (0, 0, "explore"), {q: (0.02, 3.0) if q % 2 else (1.0, 1.0) for q in range(9)}
    fixed = collect(folder / "fixed", world, micro, 4, k=16, seed=seed)
    plan = {"adaptive": True, "k_max": 16, "min_chance": 0.05}
    found = collect(folder / "found", world, micro, 4, k=8, seed=seed, prior=prior, **plan)
    effort_ = effort.Effort((2, 2, 4, 4, 4), 0.05, prior)
    n_Q = dict(zip(*np.unique(found.question_R, return_counts=True), strict=True))
    for q in range(9):
        own = fixed.take(np.flatnonzero(fixed.question_R == q))
        waves = (2, 2), (4, 4), (8, 4), (12, 4)
        assert n_Q[q] == min([16, *(n for n, more in waves if not effort_.goes_on(q, own.take(range(n)), more))])
    assert min(n_Q.values()) == 2 and max(n_Q.values()) > 8  # some were abandoned, some prolonged


def test_a_budget_ends_the_exploration_after_the_same_round_on_any_ranks(folder, world, micro):
    order, plan = np.array([7, 2, 0, 8, 5, 1, 3, 6, 4]), settings.Rollouts(chunk_questions=2, prompt=BARE)
    whole = Request(Renderer(QUESTIONS, {}, micro, BARE), order, 3, SAMPLING, (0, 0, "explore"))

    def explored(name, **budget):
        stage = Stage(folder / name)
        world.on_root(stage.prepare)
        request = replace(whole, budget=settings.Budget(rounds=3, **budget))
        collect_in_rounds(stage, request, lambda *what: collect_rollouts(*what, plan, world), world)
        world.barrier()
        assert sorted(path.name for path in stage.path.iterdir()) == [
            "prompts.h5",
            "questions.h5",
            *(["rounds.json"] if budget else []),
            next(stage.path.glob("s*")).name,
        ]
        return load_rollouts(stage)

    everything = explored("everything")
    assert everything.question_R.tolist() == np.repeat(np.arange(9), 3).tolist()
    usable_Q, tokens_R = np.isin(order, list(effort.decided(everything))), everything.n_tokens_R
    tokens_Q = np.array([tokens_R[everything.question_R == q].sum() for q in order])

    def prefix(budget):
        """How many questions of the order a budget allows: whole rounds, until it is spent."""
        n = 0
        while more := budget.next_round(9, n, int(usable_Q[:n].sum()), int(tokens_Q[:n].sum())):
            n += more
        return n

    for tokens in (1, int(tokens_Q[:3].sum()), int(tokens_Q[:5].sum()), 10**6):
        found, n = explored(f"tokens-{tokens}", tokens=tokens), prefix(settings.Budget(rounds=3, tokens=tokens))
        assert sorted(set(found.question_R)) == sorted(order[:n]) and tokens_Q[:n].sum() >= min(tokens, tokens_Q.sum())
        assert found.n_tokens_R.sum() == tokens_Q[:n].sum()
        rows = np.isin(everything.question_R, order[:n])
        assert list(found.text_R) == list(everything.take(np.flatnonzero(rows)).text_R)
    found, n = explored("pairs", pairs=1), prefix(settings.Budget(rounds=3, pairs=1))
    assert sorted(set(found.question_R)) == sorted(order[:n]) and (usable_Q[:n].any() or n == 9)


def test_a_merge_that_was_interrupted_or_damaged_makes_only_what_is_missing(folder, world, micro, monkeypatch):
    plan, order = settings.Rollouts(chunk_questions=2, prompt=BARE), np.array([7, 2, 0, 8, 5, 1, 3, 6, 4])
    budget = settings.Budget(rounds=3, tokens=10**6)
    request = Request(Renderer(QUESTIONS, {}, micro, BARE), order, 3, SAMPLING, (0, 0, "explore"), budget=budget)
    stage = Stage(folder / "stage")
    world.on_root(stage.prepare)
    remove, made = Stage.remove, []

    def killed(stage, name):
        if name == "round-0001":
            raise OSError("killed here")
        remove(stage, name)

    def collected(part, asked):
        made.append(part.path.name)
        collect_rollouts(part, asked, plan, world)

    def collect_again():
        made.clear()
        collect_in_rounds(stage, request, collected, world)
        world.barrier()
        assert not list(stage.path.glob("round-*"))
        return load_rollouts(stage)

    monkeypatch.setattr(Stage, "remove", killed)
    with pytest.raises((OSError, RuntimeError), match="killed here"):
        collect_again()
    monkeypatch.undo()
    whole = collect_again()
    texts = list(whole.text_R)
    assert made == [] and len(whole) == 27
    for name, rounds_made in (("prompts.h5", 0), (next(stage.path.glob("shard-*")).name, 3)):
        world.barrier()  # texts are read from the file when they are used
        world.on_root((stage.path / name).unlink)
        world.barrier()
        again = collect_again()
        assert len(made) == rounds_made and list(again.text_R) == texts and stage.has("prompts")
