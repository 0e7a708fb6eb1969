"""One queue over chunks: rows stay full, claims are bounded, chunks are handed back as they complete."""

import numpy as np
import pytest
from support.collecting import collect
from support.dry import Bare, share_of_rows
from support.generating import tokens

from hpc_saidpo import settings
from hpc_saidpo.parallel.task import Task
from hpc_saidpo.parallel.world import World
from hpc_saidpo.records import Rollouts
from hpc_saidpo.rollouts.effort import Effort
from hpc_saidpo.rollouts.engine import engine
from hpc_saidpo.rollouts.engine.engine import stream
from hpc_saidpo.rollouts.engine.work import Backlog, Load, Work, listed
from hpc_saidpo.rollouts.prompts import Renderer
from hpc_saidpo.rollouts.waves import Queue, in_waves
from hpc_saidpo.settings.rollouts import Sampling


def test_rows_stay_full_over_chunks(micro):
    share, steps = share_of_rows(micro, 400, 96, mean=40, cap=100)
    drained_share, drained_steps = share_of_rows(micro, 400, 96, mean=40, cap=100, drained=True)
    assert share > 0.85 and drained_share < 0.55
    assert steps < 0.6 * drained_steps


class Counting:
    """Claims of n items, which count what was requested; an answer comes at the second request for it."""

    def __init__(self, n):
        self.left, self.ended, self.late = list(range(n))[::-1], [], True

    def next(self, wait=True):
        self.late = not self.late
        if not self.left or (self.late and not wait):
            return None
        return self.left.pop()


@pytest.mark.parametrize("drained", [False, True])
def test_a_chunk_is_claimed_when_all_earlier_questions_are_begun_and_there_is_room(micro, drained):
    token_Q = {q: ids for q, ids in enumerate(tokens(micro, [f"{q}+{q}\n" for q in range(40, 60)]))}
    chunks, claims, seen = [list(range(i, i + 5)) for i in range(0, 20, 5)], Counting(4), []
    made: list[Bare] = []

    def begin(item):
        # Works of earlier chunks that no row has: there are none.
        assert not queue._waiting and (not drained or all(chunk.is_complete for chunk in made))
        made.append(Bare(chunks[item], token_Q, 3))
        return made[-1]

    queue = Queue(begin, claims, drained)
    config = settings.Engine(rows=12)
    load = Load(3, 8, 8)
    for item, _ in queue.answers(stream(micro, queue.take, load, Sampling(1.5, 1.0, 20), config)):
        seen.append((item, 4 - len(claims.left)))
        # 12 rows hold 4 questions: with 5 in a chunk, at most two chunks are begun at a time.
        assert 4 - len(claims.left) - len(seen) <= (0 if drained else 2)
    assert sorted(item for item, _ in seen) == [0, 1, 2, 3]


def test_a_works_further_wave_goes_first_and_the_engine_takes_what_the_reader_adds(micro):
    first, second = (Work(ids, [1, 2]) for ids in tokens(micro)[:2])
    waiting = [first]
    done = []
    sampling = Sampling(1.0, 1.0, 8)
    for work in stream(
        micro, lambda _: waiting.pop() if waiting else None, Load(2, 20, 20), sampling, settings.Engine()
    ):
        done.append(work)
        if work is first:
            waiting.append(second)
    assert done == [first, second] and all(r.tokens and r.text for work in done for r in work.responses)


def test_memory_that_does_not_suffice_begins_incomplete_responses_again(micro, monkeypatch):
    works = [Work(ids, [10 * i + s for s in range(5)]) for i, ids in enumerate(tokens(micro) * 3)]
    calls = []
    decode = engine.DECODE["shared"]

    def failing(policy, backlog, load, sampling, options):
        calls.append(options.n_rows)
        for n, part in enumerate(decode(policy, backlog, load, sampling, options)):
            yield part
            if n == 3 and options.n_rows > 4:
                raise MemoryError

    sampling, config = Sampling(1.0, 1.0, 12), settings.Engine(rows=16)
    assert len(list(stream(micro, listed(works), Load(5, 20, 20), sampling, config))) == 12
    expected = [[r.tokens for r in work.responses] for work in works]
    again = [Work(work.prompt, work.seeds) for work in works]
    monkeypatch.setitem(engine.DECODE, "shared", failing)
    done = list(stream(micro, listed(again), Load(5, 20, 20), sampling, config))
    assert calls == [16, 8, 4] and len(done) == len(set(done)) == 12
    assert [[r.tokens for r in work.responses] for work in again] == expected


def test_a_backlog_takes_no_more_than_it_is_asked_for():
    taken = []
    works = iter([Work([1], [1] * 5), Work([2], [2])])
    backlog = Backlog(lambda wait: taken.append(wait) or next(works, None), 2)
    parts = [backlog.take() for _ in range(3)]
    assert taken == [False] and [part.samples for part in parts] == [[0, 1], [2, 3], [4]]
    assert [backlog.end(part) is not None for part in parts] == [False, False, True]
    assert backlog.take(True).work.prompt == [2] and backlog.take(True) is None and taken == [False, True, True]


def test_responses_do_not_depend_on_the_queue_or_on_few_starts(folder, micro):
    drained = collect(folder / "drained", World(), micro, 2, drained=True)
    queued = collect(folder / "queued", World(), micro, 2)
    assert drained.text_R == queued.text_R and np.array_equal(drained.seed_R, queued.seed_R)


def test_root_hears_of_chunks_as_they_end(folder, micro, monkeypatch):
    ended = {}
    monkeypatch.setattr(
        Task, "end", lambda self, rank, index, counts=None: ended.update({index: counts} if counts else {})
    )
    table = collect(folder, World(), micro, 3)
    chunks = list(ended.values())
    assert sorted(ended) == [0, 1, 2]
    assert sum(counts["tokens"] for counts in chunks) == table.n_tokens_R.sum()
    assert [counts["questions"] for counts in chunks] == [3, 3, 3]


def test_no_questions_give_an_empty_table(micro, grader):
    config = settings.Rollouts(k=4)
    renderer = Renderer([], {}, micro, config.prompt)
    table = in_waves(Effort((4,)), {}, renderer, config.sampling(), config, (0, 0, "explore"), grader)
    assert len(Rollouts.concat([table, table])) == 0
