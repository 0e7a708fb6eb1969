import numpy as np
import pytest
from conftest import silent

from hpc_saidpo import prompt, rollouts
from hpc_saidpo.generate import Sampling, generate
from hpc_saidpo.grader import Grader
from hpc_saidpo.records import CORRECT, Question
from hpc_saidpo.store import Stage

QUESTIONS = [Question(str(i), f"{i}+{i}=?", str(2 * i), subject="ab"[i % 2]) for i in range(1, 10)]
HOW = Sampling(1.5, 1.0, 20)
BARE = prompt.Config(chat=False, question="{question}\n")


def test_chunks_hold_one_family_of_like_lengths():
    tokens = {q: [0] * (10 - q) for q in range(10)}
    chunks = rollouts.cut(tokens, lambda q: "ab"[q % 2], 3)
    assert chunks == [[0, 2, 4], [6, 8], [1, 3, 5], [7, 9]]
    assert rollouts.cut(tokens, lambda q: "", 4) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert rollouts.cut({}, lambda q: "", 4) == []


def collect(folder, world, micro, chunk_questions, k=3, seed=0, sealed=True):
    stage = Stage(folder)
    if not sealed:  # as if killed just before
        stage.seal = lambda *_: None
    world.on_root(stage.prepare)
    config = rollouts.Config(chunk_questions=chunk_questions, prompt=BARE)
    with Grader() as grader:
        rollouts.collect(
            stage, rollouts.Prompts(QUESTIONS, {}, micro, BARE), np.arange(9), k, HOW, config, world,
            (seed, 0, "probe"), silent, grader,
        )  # fmt: skip
    world.barrier()
    return rollouts.load(stage)


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
