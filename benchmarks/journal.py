"""A journal of many runs: who is fragile to what, and a gate's decision, beside plain scans that give the same answers.

`python -m benchmarks.journal --runs 1000000`; it needs about 1 GB of disk for a million runs, in a folder of its own that it removes.
"""

import argparse
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from frangible.gate import Evidence, Requirement, decide
from frangible.journal import Journal, RunRecord
from frangible.journal.rows import fingerprint_row, rows_of, run_row
from frangible.journal.store import SCHEMA
from frangible.judge import FaultProof, IndicatorVerdict, Outcome, WindowName
from frangible.process import ProcessIdentity

ENVIRONMENTS = tuple(f"env-{number:03d}" for number in range(50))
FAULTS = ("node-loss", "middleware-restart", "cpu-saturation", "volume-surge", "process-pause")
OUTCOMES = ("held", "held", "held", "held", "deviated", "inconclusive")
BEGINNING = 1_700_000_000.0
YEARS = 3 * 365 * 86400.0
ROUNDS = 7
RECORD = RunRecord(
    id="",
    experiment="",
    experiment_title="Orders flow on",
    experiment_digest="ab" * 32,
    environment="",
    region="newyork",
    tier="staging",
    owner="equities",
    note="",
    ticket="",
    actor="kim@desk",
    supervisor=ProcessIdentity("desk", "boot", 1, 1),
    started_at=0.0,
    ended_at=0.0,
    state="finished",
    outcome="held",
    ending="completed",
    keys=(),
    reasons=("order-acknowledged 0.996 (at least 0.99): kept",),
    indicators=(IndicatorVerdict("order-acknowledged", WindowName.EFFECT, Outcome.HELD, "", "at least 0.99", 0.996, 0.99, 1.0, 996.0, 1000.0, 20, 1.1),),
    proofs=(FaultProof("lease", "node-loss", "node app-1", True, 1.0, 0.9, True),),
    fingerprint={"kernel.release": "6.1"},
)


def main() -> None:
    """Build the journal, ask it, and print what each answer took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="frangible-journal-") as folder:
        path = Path(folder) / "journal.db"
        _told("build the journal", _took(lambda: _build(path, options.runs, options.seed)))
        _told("count the runs of a journal of the version before", _took(lambda: _open(path).close()))
        print(f"{options.runs} runs, {len(ENVIRONMENTS)} environments, {len(FAULTS)} faults, {path.stat().st_size / 1e6:.0f} MB")
        with _open(path) as journal:
            _ask_fragility(journal, path)
            _ask_gate(journal, path)
        for command in (("fragility",), ("gate", "--policy", str(_policy(Path(folder))))):
            _told(f"frangible {command[0]}, a process of its own", _took(partial(_run, folder, *command), rounds=3))


def _ask_fragility(journal: Journal, path: Path) -> None:
    stored = {(one.environment, one.fault): (one.held, one.deviated, one.inconclusive) for one in journal.fragility()}
    assert stored == _count_in_sql(path) == _count_in_python(path), "the answers differ"
    _told("fragility of all environments", _took(journal.fragility, ROUNDS))
    _told("  the same counts by a scan in SQL", _took(lambda: _count_in_sql(path)))
    _told("  the same counts by a scan in Python", _took(lambda: _count_in_python(path)))


def _ask_gate(journal: Journal, path: Path) -> None:
    wanted = tuple(Requirement(environment, fault, 7 * 86400.0, 2) for environment in ENVIRONMENTS for fault in FAULTS)
    now = BEGINNING + YEARS

    def indexed() -> list[str]:
        found = journal.newest([(one.environment, one.experiment, one.held_in_a_row) for one in wanted])
        return [decide(one, runs, now).answer for one, runs in zip(wanted, found, strict=True)]

    def scanned() -> list[str]:
        runs = _scan(path)
        return [decide(one, runs.get((one.environment, one.experiment), []), now).answer for one in wanted]

    assert indexed() == scanned(), "the answers differ"
    _told(f"gate decision over {len(wanted)} environments x experiments", _took(indexed, ROUNDS))
    _told("  the same decision by a scan in Python", _took(scanned))


def _build(path: Path, runs: int, seed: int) -> None:
    """Write the rows that finished runs have, as a journal of the version before has them: not counted yet."""
    _open(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA synchronous = OFF")
    database.execute(*_insert("run_fingerprints", fingerprint_row(RECORD)))
    rng = random.Random(seed)
    templates = {}
    for fault in FAULTS:
        record = replace(RECORD, experiment=fault, proofs=(replace(RECORD.proofs[0], fault=fault),))
        parts = {table.name: rows[0] for table, rows in rows_of(record).items() if rows}
        templates[fault] = {"runs": run_row(record)} | parts
    for table in ("runs", "run_indicators", "run_proofs"):
        state = rng.getstate()
        statement = _insert(table, templates[FAULTS[0]][table])[0]
        database.executemany(statement, (tuple(row.values()) for row in _rows(table, runs, rng, templates)))
        rng.setstate(state)  # the same runs for each table
    database.execute("DROP TABLE fragility")
    database.execute(f"UPDATE {SCHEMA.version_table} SET version_num = '0001'")
    database.commit()
    database.close()


def _rows(table: str, runs: int, rng: random.Random, templates: dict[str, dict[str, dict[str, object]]]) -> Iterator[dict[str, object]]:
    for number in range(runs):
        environment, fault, outcome = rng.choice(ENVIRONMENTS), rng.choice(FAULTS), rng.choice(OUTCOMES)
        run, at = f"run-{number:09d}", BEGINNING + YEARS * number / runs
        own: dict[str, object] = {"run_id": run}
        if table == "runs":
            own = {"id": run, "environment": environment, "started_at": at, "ended_at": at + 60, "outcome": outcome, "content": run}
        yield {**templates[fault][table], **own}


def _insert(table: str, row: dict[str, object]) -> tuple[str, tuple[object, ...]]:
    names = ", ".join(f'"{name}"' for name in row)
    return f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())


def _count_in_sql(path: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    query = """
        SELECT environment, fault, SUM(outcome = 'held'), SUM(outcome = 'deviated'), SUM(outcome = 'inconclusive')
        FROM runs JOIN (SELECT DISTINCT run_id, fault FROM run_proofs WHERE injected = 1) ON run_id = id WHERE state = 'finished' GROUP BY environment, fault
    """
    return {(row[0], row[1]): (row[2], row[3], row[4]) for row in _select(path, query)}


def _count_in_python(path: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    runs = {run: (environment, outcome) for run, environment, outcome in _select(path, "SELECT id, environment, outcome FROM runs WHERE state = 'finished'")}
    counts: dict[tuple[str, str], list[int]] = {}
    for run, fault in set(_select(path, "SELECT run_id, fault FROM run_proofs WHERE injected = 1")):
        environment, outcome = runs[run]
        counts.setdefault((environment, fault), [0, 0, 0])[("held", "deviated", "inconclusive").index(outcome)] += 1
    return {key: (held, deviated, inconclusive) for key, (held, deviated, inconclusive) in counts.items()}


def _scan(path: Path) -> dict[tuple[str, str], list[Evidence]]:
    found: dict[tuple[str, str], list[Evidence]] = {}
    query = "SELECT environment, experiment, id, outcome, started_at, reasons FROM runs WHERE state = 'finished'"
    for environment, experiment, run, outcome, at, reasons in _select(path, query):
        found.setdefault((environment, experiment), []).append(Evidence(run, outcome, at, reasons))
    return {key: sorted(runs, key=lambda run: (run.started_at, run.run), reverse=True) for key, runs in found.items()}


def _select(path: Path, query: str) -> list[Any]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def _policy(folder: Path) -> Path:
    path = folder / "policy.yaml"
    rule = {"experiments": FAULTS, "environments": {"names": ENVIRONMENTS}, "within": "7d", "held-in-a-row": 2}
    path.write_text(json.dumps({"name": "benchmark", "rules": [rule]}))
    return path


def _run(folder: str, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRANGIBLE_")} | {"FRANGIBLE_HOME": folder}
    subprocess.run([sys.executable, "-m", "frangible.cli", *command], env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=False)


def _open(path: Path) -> Journal:
    return Journal.open(f"sqlite:///{path}")


def _took(work: Callable[[], object], rounds: int = 1) -> float:
    """Return the median of so many rounds, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _told(what: str, seconds: float) -> None:
    print(f"{seconds * 1000:10.0f} ms  {what}", flush=True)


if __name__ == "__main__":
    main()
