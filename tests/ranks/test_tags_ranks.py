"""Questions tagged by several ranks together."""

import contextlib
from dataclasses import replace

import pytest
from support.chat_server import config_for, serving
from support.tags import QUESTIONS, SUMS, answering, questions_of, tag

from hpc_saidpo.errors import RunError
from hpc_saidpo.records import Question


@pytest.mark.mpi
def test_ranks_share_the_questions_and_a_failure(folder, world):
    with serving(answer=answering()) if world.is_root else contextlib.nullcontext() as server:
        port = world.bcast(server.server_port if world.is_root else None)
        config = config_for(port)
        config = replace(config, chunk_questions=1)
        assert tag(folder, config, world=world) == [SUMS] * 5
        if world.is_root:
            assert sorted(questions_of(server)) == [q.text for q in QUESTIONS]
            server.misdeeds = [lambda handler: handler.reply(401, b"who are you?")] * 9
        world.barrier()
        with pytest.raises(RunError, match="who are you"):
            tag(folder, config, [Question("n", "Who?", "I"), *QUESTIONS], world=world)
        world.barrier()
