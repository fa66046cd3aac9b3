"""Laws of the record: nothing is lost on the way through JSON or through the database."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frangible.errors import JournalError
from frangible.journal import Journal, RunRecord, record_from_json, record_to_json
from frangible.judge import FaultProof, IndicatorVerdict, Outcome, Window, WindowName
from frangible.process import ProcessIdentity

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**31 - 1)
MAYBE = st.none() | NUMBER
FACTS = st.dictionaries(TEXT, TEXT, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NUMBER | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def several(of: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, max_size=3).map(tuple)


WINDOWS = st.builds(Window, st.sampled_from(WindowName), NUMBER, NUMBER)
INDICATORS = st.builds(
    IndicatorVerdict, TEXT, st.sampled_from(WindowName), st.sampled_from(Outcome), TEXT, TEXT, MAYBE, MAYBE, MAYBE, NUMBER, NUMBER, COUNT, MAYBE
)
PROOFS = st.builds(FaultProof, TEXT, TEXT, TEXT, st.booleans(), NUMBER, NUMBER, st.booleans(), TEXT)
RECORDS = st.builds(
    RunRecord,
    **dict.fromkeys(
        ("id", "experiment", "experiment_title", "experiment_digest", "environment", "region", "tier", "owner", "note", "ticket", "actor", "ending"), TEXT
    ),
    supervisor=st.builds(ProcessIdentity, TEXT, TEXT, COUNT, st.integers(0, 2**62)),
    started_at=NUMBER,
    ended_at=NUMBER,
    state=st.just("finished"),
    outcome=st.sampled_from(Outcome),
    reasons=several(TEXT),
    keys=st.lists(TEXT, max_size=3, unique=True).map(tuple),
    windows=several(WINDOWS),
    indicators=several(INDICATORS),
    proofs=several(PROOFS),
    fingerprint=FACTS,
    facts=FACTS,
    recovered_after=MAYBE,
    timings=st.dictionaries(TEXT, NUMBER, max_size=3),
    chaos_journal=JSON,
    series=JSON,
)


@given(RECORDS)
def test_a_record_comes_back_from_json_as_it_was(record: RunRecord) -> None:
    assert record_from_json(record_to_json(record)) == record


@given(RECORDS)
def test_the_json_form_is_the_same_every_time(record: RunRecord) -> None:
    assert record_to_json(record_from_json(record_to_json(record))) == record_to_json(record)


@given(RECORDS, st.data())
def test_a_record_without_one_of_its_keys_is_refused_or_that_key_had_a_default(record: RunRecord, data: st.DataObject) -> None:
    document = json.loads(record_to_json(record))
    key = data.draw(st.sampled_from(sorted(document)))
    del document[key]
    required = {field.name for field in dataclasses.fields(RunRecord) if field.default is field.default_factory is dataclasses.MISSING} | {"format"}
    if key in required:
        with pytest.raises(JournalError):
            record_from_json(json.dumps(document))
    else:
        record_from_json(json.dumps(document))


@given(st.text() | JSON.map(json.dumps))
def test_any_other_text_is_refused_and_never_crashes(text: str) -> None:
    with pytest.raises(JournalError):
        record_from_json(text)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path: Path = tmp_path_factory.mktemp("journal") / "journal.db"
    with Journal.open(f"sqlite:///{path}") as journal:
        yield journal


@given(record=RECORDS)
def test_a_record_comes_back_from_the_database_as_it_was(journal: Journal, record: RunRecord) -> None:
    mine = dataclasses.replace(record, id=f"{len(journal.runs(limit=None)):06d}")
    journal.start(dataclasses.replace(mine, state="started", ended_at=None, outcome=None))
    journal.finish(mine)
    journal.finish(mine)
    assert journal.get(mine.id) == mine
