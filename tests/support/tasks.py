"""A task that notes what ranks report to it."""

from hpc_saidpo.parallel.task import Task


class Noted(Task):
    """Notes the items that any rank begins, in their order; fails at one of them."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.items, self._fails_at = [], fails_at

    def begin(self, rank, index):
        if index == self._fails_at:
            raise OSError("the terminal is gone")
        super().begin(rank, index)
        self.items.append(index)
