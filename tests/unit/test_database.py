"""Databases of one process."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

from frangible.journal import Journal
from frangible.ledger import Ledger


def test_threads_make_new_databases_side_by_side(tmp_path):
    """A process whose threads each open a ledger and a journal of their own gets them all."""

    def make(number: int) -> None:
        with contextlib.closing(Ledger.open(f"sqlite:///{tmp_path}/ledger-{number}.db")) as ledger:
            assert ledger.stops() == ()
        with contextlib.closing(Journal.open(f"sqlite:///{tmp_path}/journal-{number}.db")) as journal:
            assert journal.runs() == ()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(make, range(6)))
