"""Short real runs on the lab: an experiment written for one test, started as `frangible run` does, followed to its verdict."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from frangible import launch
from frangible.home import Home
from frangible.inventory import load_inventory
from frangible.journal import Journal, RunRecord

__all__ = ["GATEWAY_OF_APP_1", "Ended", "Event", "execute", "gauge", "hypothesis", "orders", "write_experiment"]

type Event = dict[str, Any]

LONGEST = 240.0
"""Seconds after which a run is stopped: it hangs."""


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    record: RunRecord
    events: list[Event] = field(repr=False)
    hung: bool = False

    @property
    def outcome(self) -> str | None:
        """The verdict."""
        return self.record.outcome

    @property
    def why(self) -> str:
        """All reasons in one text."""
        return "; ".join(self.record.reasons)

    @property
    def injected(self) -> bool:
        """Whether any fault was ever begun."""
        return any(event["event"] == "fault" for event in self.events)

    @property
    def reverted(self) -> bool:
        """Whether every fault that was injected was seen gone."""
        return bool(self.record.proofs) and all(proof.reverted for proof in self.record.proofs if proof.injected)


def orders(name: str = "orders", **more: Any) -> dict[str, Any]:
    """Indicator: orders acknowledged in time; broken by the loss of a role, kept through everything else that a small machine does."""
    return {
        "name": name,
        "kind": "ratio",
        "block": "1s",
        "good": 'order_outcomes_total{${labels},outcome="in_time"}',
        "valid": "order_outcomes_total{${labels}}",
        "bound": {"at-least": 0.6},
        "tolerated-share": 0.3,
        "when-absent": "broken",
        **more,
    }


GATEWAY_OF_APP_1 = 'process_resident_memory_bytes{${labels},node="app-1",service="gateway"}'
"""A series that only the node app-1 exports."""


def gauge(name: str, query: str, **more: Any) -> dict[str, Any]:
    """Indicator: a series that is there and not negative."""
    return {"name": name, "kind": "gauge", "block": "1s", "lookback": "1s", "query": query, "bound": {"at-least": 0}, **more}


def hypothesis(name: str, *indicators: dict[str, Any], requires: float | None = 20, within: str = "20s") -> dict[str, Any]:
    """A hypothesis, as its file has it."""
    load = {} if requires is None else {"requires": {"metric": "orders_offered_total{${labels}}", "at-least": requires}}
    return {"name": name, **load, "recovery": {"within": within, "steady-for": "1s"}, "indicators": list(indicators)}


def write_experiment(folder: Path, *hypotheses: dict[str, Any], node: str = "app-1", fault: str = "node-loss", hold: float = 6.5, **extension: str) -> Path:
    """Write an experiment and its hypotheses into a folder of their own; `fault` is `node-loss` or `placebo`."""
    function = {"node-loss": "lose_nodes", "placebo": "hold_without_fault"}[fault]
    (folder / "hypotheses").mkdir(parents=True)
    for each in hypotheses:
        (folder / "hypotheses" / f"{each['name']}.yaml").write_text(yaml.safe_dump(each))
    windows = {"baseline": "3s", "baseline-limit": "45s", "settle": "300ms", **{name.replace("_", "-"): value for name, value in extension.items()}}
    document = {
        "title": f"{fault} of {node}",
        "description": "Windows as short as they can be.",
        "controls": [{"name": "frangible", "provider": {"type": "python", "module": "frangible.control"}}],
        "extensions": [{"name": "frangible", **windows}],
        "runtime": {"rollbacks": {"strategy": "always"}},
        "steady-state-hypothesis": {"title": "steady", "probes": [_probe(each["name"]) for each in hypotheses]},
        "method": [{"type": "action", "name": fault, "provider": _python(f"actions.{fault.replace('-', '_')}", function, name=node, hold=hold)}],
        "rollbacks": [],
    }
    path = folder / f"{fault}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def _probe(name: str) -> dict[str, Any]:
    return {"type": "probe", "name": name, "tolerance": True, "provider": _python("probes.steady_state", "steady_state", hypothesis=name)}


def _python(module: str, function: str, **arguments: Any) -> dict[str, Any]:
    return {"type": "python", "module": f"frangible.{module}", "func": function, "arguments": arguments}


def execute(home: Home, inventory: Path, environment: str, experiment: Path, on_event: Callable[[Event], None] = lambda _: None) -> Ended:
    """Run an experiment as `frangible run` does and wait for its end; `on_event` is called with each event."""
    estate = load_inventory(inventory)
    plan = launch.prepare(experiment, estate.get(environment), estate, home)
    handle = launch.start(plan)
    late = threading.Event()

    def stop() -> None:
        late.set()
        handle.abort("the test waited too long")

    watchdog = threading.Timer(LONGEST, stop)
    watchdog.start()
    events: list[Event] = []
    try:
        for event in handle.events():
            events.append(event)  # type: ignore[arg-type]
            on_event(event)  # type: ignore[arg-type]
    finally:
        watchdog.cancel()
        handle.channel.close()
    with contextlib.closing(Journal.open(home.journal_url)) as journal:
        return Ended(journal.get(plan.run_id), events, late.is_set())
