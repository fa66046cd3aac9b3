"""`frangible gate`: may a change go on?"""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from xml.etree import ElementTree

import typer

from frangible.cli import completion
from frangible.cli.group import new_app
from frangible.cli.opening import AsJson, InventoryPath, inventory_at, journal_of
from frangible.cli.output import columns, moment, print_json
from frangible.errors import InputError, UsageError
from frangible.gate import Answer, Case, Decision, cases, decide, overall
from frangible.home import Home

if TYPE_CHECKING:
    from frangible.inventory import Inventory

__all__ = ["app"]

app = new_app()
EXIT_CODES = {Answer.PASS: 0, Answer.FAIL: 1, Answer.UNKNOWN: 3}
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@app.command()
def gate(
    policy: Annotated[Path, typer.Option("--policy", metavar="FILE", help="What must have held; see docs/formats.md.", autocompletion=completion.experiments)],
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML, a test case an indicator.")] = None,
    inventory: InventoryPath = None,
    as_json: AsJson = False,
) -> None:
    """Answer a pipeline: may a change go on, after what the journal knows?

    Exit codes: 0 pass, 1 fail, 3 unknown, 2 usage, 70 internal. Missing, stale and inconclusive evidence is unknown and never a pass;
    fail wins over unknown. In JUnit XML a fail is a `failure` and unknown an `error`.

    \b
    Example:
      frangible gate --policy release.yaml --junit gate.xml
    """
    from frangible.policy import load_policy, requirements

    home = Home.find()
    loaded, document = load_policy(policy)
    wanted = requirements(loaded, document, _inventory(home, inventory))
    with journal_of(home) as journal:
        found = journal.newest([(one.environment, one.experiment, one.held_in_a_row) for one in wanted])
        now = time.time()
        decisions = [decide(one, runs, now) for one, runs in zip(wanted, found, strict=True)]
        verdicts = journal.indicators([one.evidence.run for one in decisions if one.evidence]) if junit or as_json else {}
    told = [(one, cases(one, verdicts.get(one.evidence.run, ()) if one.evidence else ())) for one in decisions]
    answer = overall(decisions)
    if junit is not None:
        _write(junit, _junit(loaded.name, told))
    if as_json:
        print_json({"policy": loaded.name, "answer": answer, "decisions": [_document(*one) for one in told]})
    else:
        typer.echo(columns(("ENVIRONMENT", "EXPERIMENT", "ANSWER", "RUN", "STARTED", "WHY"), [_row(one) for one in decisions]))
        typer.echo(f"{answer.upper()}: {loaded.name}")
    if answer is not Answer.PASS:
        raise typer.Exit(EXIT_CODES[answer])


def _inventory(home: Home, path: Path | None) -> "Inventory | None":
    try:
        return inventory_at(path, home)[1]
    except InputError:
        raise
    except UsageError:
        if path is not None:
            raise
        return None


def _row(decision: Decision) -> tuple[str, ...]:
    wanted, run = decision.requirement, decision.evidence
    return (wanted.environment, wanted.experiment, decision.answer, run.run if run else "-", moment(run.started_at if run else None), decision.reason)


def _document(decision: Decision, told: Sequence[Case]) -> dict[str, object]:
    indicators = [asdict(case) for case in told[1:]]
    run = asdict(decision.evidence) if decision.evidence else None
    return asdict(decision.requirement) | {"answer": decision.answer, "reason": decision.reason, "evidence": run, "indicators": indicators}


def _junit(name: str, told: Sequence[tuple[Decision, Sequence[Case]]]) -> bytes:
    """Return JUnit XML: a suite an environment and experiment."""
    root = ElementTree.Element("testsuites", {"name": _plain(name), **_counts([case for _, found in told for case in found])})
    for decision, found in told:
        wanted = decision.requirement
        suite = ElementTree.SubElement(root, "testsuite", {"name": _plain(f"{wanted.environment}.{wanted.experiment}"), **_counts(found)})
        for case in found:
            place = {"classname": _plain(f"{wanted.environment}.{wanted.experiment}"), "name": _plain(case.name), "time": "0"}
            element = ElementTree.SubElement(suite, "testcase", place)
            if case.answer is not Answer.PASS:
                kind = "failure" if case.answer is Answer.FAIL else "error"
                ElementTree.SubElement(element, kind, {"message": _plain(case.reason), "type": case.answer})
    ElementTree.indent(root)
    return b"\n".join((b'<?xml version="1.0" encoding="utf-8"?>', ElementTree.tostring(root, encoding="unicode").encode()))


def _counts(found: Sequence[Case]) -> dict[str, str]:
    failures, errors = (sum(case.answer is answer for case in found) for answer in (Answer.FAIL, Answer.UNKNOWN))
    return {"tests": str(len(found)), "failures": str(failures), "errors": str(errors), "skipped": "0"}


def _plain(text: str) -> str:
    """Replace what XML cannot hold."""
    return NOT_XML.sub("\ufffd", text)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content + b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; name a file in a folder that exists") from error
