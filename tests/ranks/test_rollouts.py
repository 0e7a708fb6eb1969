import numpy as np
import pytest
from scipy import stats
from support.make import make_rollouts

from hpc_saidpo import difficulty, settings
from hpc_saidpo.dpo import pairs
from hpc_saidpo.grader.grader import Grader
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import CORRECT, UNGRADABLE, WRONG, Question, Rollouts
from hpc_saidpo.rollouts import prompts, waves
from hpc_saidpo.rollouts.engine.engine import generate
from hpc_saidpo.settings.rollouts import Sampling
from hpc_saidpo.store.stage import Stage

QUESTIONS = [Question(str(i), f"{i}+{i}=?", str(2 * i), subject="ab"[i % 2]) for i in range(1, 10)]
HOW = Sampling(1.5, 1.0, 20)
BARE = settings.Prompt(chat=False, question="{question}\n")


def collect(
    folder, world, micro, chunk_questions, k=3, seed=0, sealed=True, expected=None, purpose="probe", **settings
):
    stage = Stage(folder)
    if not sealed:  # as if killed just before
        stage.seal = lambda *_: None
    world.on_root(stage.prepare)
    config = settings.Rollouts(chunk_questions=chunk_questions, prompt=BARE, **settings)
    with Grader() as grader:
        stage.collect(
            stage, prompts.Prompts(QUESTIONS, {}, micro, BARE), np.arange(9), k, HOW, config, world,
            (seed, 0, purpose), silent, grader, expected,
        )  # fmt: skip
    world.barrier()
    return stage.load(stage)


def chunks_of(folder):
    """Chunk file -> its questions and responses."""
    tables = {path.name: Stage(folder).read(path.stem, Rollouts) for path in sorted(folder.glob("chunk-*.h5"))}
    return {name: (table.question_R.tolist(), list(table.text_R)) for name, table in tables.items()}


@pytest.mark.mpi
def test_rollouts_do_not_depend_on_chunks_or_ranks(folder, world, micro):
    by_two, by_five = (collect(folder / str(n), world, micro, n) for n in (2, 5))
    assert by_two.question_R.tolist() == np.repeat(np.arange(9), 3).tolist()
    assert by_two.sample_R.tolist() == [0, 1, 2] * 9
    assert by_two.text_R == by_five.text_R and len(set(by_two.text_R)) > 9
    assert by_two.text_R != collect(folder / "other", world, micro, 2, seed=1).text_R


@pytest.mark.mpi
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
    assert [p.name for p in (folder / "run").iterdir()] == ["shard-000000-000004.h5"]


@pytest.mark.mpi
def test_a_stage_goes_on_with_other_ranks_and_another_order(folder, world, micro):
    """What the run has learned meanwhile, or who is there, changes the order of the chunks and nothing in them."""
    world.on_root(lambda: collect(folder, World(), micro, 2, sealed=False) and None)
    alone = chunks_of(folder)
    world.barrier()
    for i in (0, 2, 3):
        world.on_root((folder / f"chunk-{i:06d}.h5").unlink)
    collect(folder, world, micro, 2, sealed=False, expected={q: 100.0 * q for q in range(9)})
    assert chunks_of(folder) == alone and len(alone) == 5


def test_the_longest_chunk_is_begun_first(folder, micro, monkeypatch):
    begun = []
    write_chunk = Stage.write_chunk
    monkeypatch.setattr(
        Stage, "write_chunk", lambda s, index, table: begun.append(index) or write_chunk(s, index, table)
    )
    collect(folder / "length", World(), micro, 3)
    collect(folder / "expected", World(), micro, 3, expected={4: 500.0, 7: 90.0})
    assert begun == [0, 1, 2, 1, 2, 0]


def test_a_response_can_be_drawn_again_from_its_seed_alone(folder, world, micro):
    table = collect(folder, world, micro, 4)
    row = 7
    question = QUESTIONS[table.question_R[row]]
    assert table.id_R[row] == question.id and len(set(table.seed_R)) == len(table)
    ((again,),) = generate(micro, [micro.encode_prompt(question.text + "\n", False)], [[int(table.seed_R[row])]], HOW)
    assert again.text == table.text_R[row]


def test_grades_and_counts(folder, world, micro):
    table = collect(folder, world, micro, 4, k=8)
    for row in range(len(table)):
        right = table.text_R[row].splitlines()[-1:] == [f"#### {QUESTIONS[table.question_R[row]].answer}"]
        assert (table.verdict_R[row] == CORRECT) == right
        assert table.n_steps_R[row] == len([line for line in table.text_R[row].splitlines() if line.strip()])
        assert table.n_tokens_R[row] == len(micro.encode_response(table.text_R[row], table.finished_R[row], ()))


@pytest.mark.mpi
def test_early_decision_draws_the_same_responses_and_finds_the_same_questions(folder, world, micro):
    fixed = collect(folder / "fixed", world, micro, 4, k=8, purpose="explore")
    early = collect(folder / "early", world, micro, 4, k=8, purpose="explore", adaptive=True)
    assert 0 < len(early) < len(fixed) == 72
    both = waves.decided(fixed)
    assert 0 < len(both) < 9  # some questions can give a pair, some cannot
    assert waves.decided(early) == both
    text_of = {(q, s): text for q, s, text in zip(fixed.question_R, fixed.sample_R, fixed.text_R, strict=True)}
    for q in range(9):
        own = early.take(np.flatnonzero(early.question_R == q))
        n = len(own)
        assert own.sample_R.tolist() == list(range(n)) and n in (2, 4, 8)
        assert [text_of[q, s] for s in range(n)] == list(own.text_R)
        before = fixed.take(np.flatnonzero((fixed.question_R == q) & (fixed.sample_R < {2: 0, 4: 2, 8: 4}[n])))
        assert not waves.decided(before)  # it went on because it had to
        assert n == 8 or q in waves.decided(own)  # it ended because it could


def test_only_what_is_asked_for_is_decided_early():
    config = settings.Rollouts(adaptive=True)
    assert config.waves_of("explore") == (2, 2, 4) and config.waves_of("probe") == config.waves_of("evaluate/x") == ()
    assert settings.Rollouts(adaptive=True, adaptive_probe=True).waves_of("probe") == (2, 2, 4)
    assert settings.Rollouts().waves_of("explore") == ()
    with pytest.raises(ValueError, match=r"waves \[2, 2, 4\] are 8 responses, not k=4"):
        settings.Rollouts(adaptive=True, k=4)


def test_a_question_is_decided_by_a_finished_correct_and_a_wrong_response():
    rows = {1: [(CORRECT, True), (WRONG, False)], 2: [(CORRECT, False), (WRONG, True)],
            3: [(CORRECT, True), (UNGRADABLE, True)], 4: [(WRONG, True), (CORRECT, True), (CORRECT, True)]}  # fmt: skip
    table = make_rollouts([(q, i, v, 5, 1, f, f"{q} {i}") for q, own in rows.items() for i, (v, f) in enumerate(own)])
    assert waves.decided(table) == {1, 4}


def test_pairs_of_early_decisions_are_distributed_as_those_of_all_responses():
    # Correct responses of 3 lengths, wrong ones of 2: which are paired must not depend on when a question was decided.
    rng = np.random.default_rng(0)
    drawn = [[(rng.random() < p, rng.choice(3)) for _ in range(8)] for p in rng.beta(0.5, 0.5, 6000)]

    def paired(early):
        kept = []
        for q, own in enumerate(drawn):
            ends = [n for n in (2, 4, 8) if 0 < sum(right for right, _ in own[:n]) < n] if early else [8]
            kept += [(q, i, CORRECT if right else WRONG, 1, 1, True, f"{right} {kind} {i}")
                     for i, (right, kind) in enumerate(own[: ends[0] if ends else 8])]  # fmt: skip
        table = make_rollouts(kept)
        hard = difficulty.measure(table)
        usable = hard.take(np.flatnonzero(difficulty.in_band(hard, settings.Difficulty())))
        found = pairs.select(table, usable, np.zeros(6000), str, settings.Pairs(), 0, 0)
        kinds = [c.split()[1] + r.split()[1] for c, r in zip(found.chosen_B, found.rejected_B, strict=True)]
        return found.question_B.tolist(), np.unique(kinds, return_counts=True)[1], len(table)

    (questions, counts, n), (early_questions, early_counts, early_n) = paired(False), paired(True)
    assert questions == early_questions and early_n < 0.9 * n
    assert stats.chi2_contingency([counts, early_counts]).pvalue > 0.01 and len(counts) == 9
