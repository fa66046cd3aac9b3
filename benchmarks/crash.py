"""The crash campaign: kill the processes of real runs on the embedded lab, then look in the target for what is left over.

    python -m benchmarks.crash --kills 200                                  # of runs of each single fault, in turn
    python -m benchmarks.crash --kills 60 --forked                          # of runs that are started two at a time, through the fork server
    python -m benchmarks.crash --kills 40 --fault process-pause             # of runs of this one
    python -m benchmarks.crash --kills 40 --fault surge-while-node-lost     # of two faults in force together; on one environment

Each kill starts a real run, waits for a step of the lease or for a random moment, sends SIGKILL to some of the run's processes, lets the
survivors do their work, runs `frangible recover` where the supervisor was lost, and then asks the rack, the nodes' folders, the generator and
the process table, never the ledger, whether anything of the fault is still there. The ledger and the journal are checked too, after the target.

With `--forked` one command starts a run on each of two environments, and each of them has a kill of its own; the fork server is a victim too.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from rich.progress import Progress

from benchmarks.labs import lab
from benchmarks.short import FAULTS, experiments
from frangible.errors import PlatformError
from frangible.home import Home
from frangible.inventory import Environment, load_inventory
from frangible.journal import Journal
from frangible.ledger import Ledger
from frangible.platforms import open_platform
from frangible.targets import Choice, candidates

PAUSING = Path(__file__).parent / "pausing"
ENVIRONMENTS = ("lab-london", "lab-newyork")
"""Side by side; more would only make each other slow."""
OF_THE_RUN = frozenset({"supervisor", "runner"})
"""Roles of the processes that a run has for itself."""
LIMIT = 90.0
"""Seconds that any one wait of a kill may take."""


MIX = tuple(name for name, fault in FAULTS.items() if fault.leases == 1)
"""What the campaign is made of where nothing else is asked for."""
FORKED = "frangible run, forked"
"""The path of runs that are started two at a time."""


def steps(fault: str) -> list[str]:
    """Every step of a run with this fault at which one of its processes can be stopped; steps of a lease once for each lease."""
    chosen = FAULTS[fault]
    runner = ("Ledger.intend", "HostsPlatform.put_lease_copy", "Ledger.begin_injecting", "Ledger.mark_injected", "Ledger.claim", "Ledger.mark_reverted")
    places = [(f"runner:{place}", chosen.leases) for place in runner]
    places += [(f"runner:HostsPlatform.{place}", calls) for place, calls in chosen.places.items()]
    places += [("runner:HostsPlatform.delete_lease_copy", chosen.leases), ("supervisor:Journal.start", 1), ("supervisor:Journal.finish", 1)]
    numbered = [(place, moment, call) for place, calls in places for moment in ("before", "after") for call in range(1, calls + 1)]
    return [f"{place}:{moment}" if call == 1 else f"{place}:{moment}:{call}" for place, moment, call in numbered]


VICTIMS = (
    ("runner",),
    ("supervisor",),
    ("starter",),
    ("runner", "supervisor"),
    ("runner", "starter"),
    ("supervisor", "starter"),
    ("runner", "supervisor", "starter"),
)
WITH_SERVER = (*VICTIMS, ("server",), ("server", "supervisor"), ("server", "runner"), ("server", "starter"), ("server", "runner", "supervisor", "starter"))


@dataclass(frozen=True)
class Kill:
    """One experiment of the campaign."""

    number: int
    fault: str
    path: str
    victims: tuple[str, ...]
    step: str
    """Where a process stops itself, or empty for a random moment."""
    after: float
    """Seconds after the run's first event, for a random moment."""
    recoveries: int
    """How many `frangible recover` run at the same time afterwards."""

    def __str__(self) -> str:
        """Say what is killed, and when."""
        when = self.step or f"{self.after:.2f} s"
        return f"{self.fault}, {self.path}: kill {'+'.join(self.victims)} at {when}"


@dataclass
class Outcome:
    """What was left over, and how long it took until nothing was."""

    kill: Kill
    leftovers: list[str] = field(default_factory=list)
    clean_after: float | None = None
    """Seconds from the kill until nothing was broken in the target any more, when something was."""
    verdict: str = ""
    run: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        """Say what was killed, what came of it, and what is left."""
        left = "; ".join(self.leftovers) or "nothing left"
        return f"#{self.kill.number} {self.kill} ({self.run}): {self.verdict}, {self.seconds:.0f} s: {left}"


def kills(count: int, seed: int, faults: Sequence[str] = MIX, *, forked: bool = False) -> Iterator[Kill]:
    """Every step with every kind of victim in turn, mixed with random moments; two kills of one fault, then two of the next."""
    chance = random.Random(seed)
    planned = {}
    may_die = WITH_SERVER if forked else VICTIMS
    for fault in faults:
        pairs = [(step, victims) for step in steps(fault) for victims in may_die]
        chance.shuffle(pairs)
        planned[fault] = itertools.cycle(pairs)
    for number in range(count):
        fault = faults[number // 2 % len(faults)]
        step, victims = next(planned[fault]) if number % 2 == 0 else ("", chance.choice(may_die))
        path = FORKED if forked else "frangible run" if chance.random() < 0.6 else "chaos run"
        yield Kill(number, fault, path, victims, step, chance.uniform(0.0, 14.0), chance.choice((1, 1, 2)))


class Campaign:
    """Kills on one environment at a time; environments side by side."""

    def __init__(self, home: Home, folder: Path) -> None:
        """Take the lab that is up in `home`."""
        self.home = home
        self.inventory = load_inventory(home.lab / "inventory.yaml")
        self.experiments = experiments(folder)
        self._known = set(home.runs.glob("*"))
        self._rates = {name: open_platform(self._environment(name)).load().rate for name in ENVIRONMENTS if name in self.inventory.environments}

    def execute(self, kill: Kill, environment: str) -> Outcome:
        """Do one kill and report what is left over."""
        starter = self._start(kill, environment)
        try:
            return self._execute(kill, environment, starter)
        finally:
            starter.kill()
            starter.wait()

    def execute_together(self, pair: Sequence[Kill]) -> list[Outcome]:
        """Start a run on each environment with one command, do one kill to each, and report what is left over."""
        starter = self._start_together(pair)
        server: list[psutil.Process] = []
        try:
            with ThreadPoolExecutor(len(pair)) as pool:
                server.extend(_fork_server(starter))
                outcomes = list(pool.map(lambda kill, environment: self._execute(kill, environment, starter), pair, ENVIRONMENTS))
        finally:
            starter.kill()
            starter.wait()
        if any(_status(one) != psutil.STATUS_ZOMBIE for one in psutil.wait_procs(server, timeout=10)[1]):
            outcomes[0].leftovers.append("the fork server is alive")
        return outcomes

    def _execute(self, kill: Kill, environment: str, starter: "subprocess.Popen[bytes]") -> Outcome:
        outcome = Outcome(kill)
        began = time.monotonic()
        folder = self._folder(starter, environment)
        if folder is None:
            if kill.path == FORKED and starter.poll() is not None:
                outcome.verdict = "not begun"  # the other kill of the pair ended the command
            else:
                outcome.leftovers.append("the run never began")
            return outcome
        outcome.run = folder.name
        self._reach(kill, folder, starter)
        killed_at = time.monotonic()
        self._kill(kill, folder, starter)
        outcome.clean_after = self._until_clean(environment, killed_at, kill, folder, starter)
        outcome.verdict = self._outcome_of(folder.name)
        outcome.leftovers.extend(self._leftovers(environment, folder))
        outcome.seconds = time.monotonic() - began
        return outcome

    def _start_together(self, pair: Sequence[Kill]) -> "subprocess.Popen[bytes]":
        """Start the runs of a pair, which have one fault; at most one of its kills is at a step."""
        words = [sys.executable, "-m", "frangible.cli", "run", str(self.experiments[pair[0].fault]), "--quiet", "--at-most", str(len(pair))]
        words += [word for environment, _ in zip(ENVIRONMENTS, pair, strict=False) for word in ("--environment", environment)]
        variables: dict[str, str] = {}
        for kill, environment in zip(pair, ENVIRONMENTS, strict=False):
            if kill.step:
                variables |= {"FRANGIBLE_PAUSE_AT": kill.step, "FRANGIBLE_PAUSE_ON": environment, "PYTHONPATH": str(PAUSING)}
        return self._command(words, variables, pair[0])

    def _start(self, kill: Kill, environment: str) -> "subprocess.Popen[bytes]":
        experiment = self.experiments[kill.fault]
        command = {
            "frangible run": [sys.executable, "-m", "frangible.cli", "run", str(experiment), "--environment", environment, "--quiet"],
            "chaos run": [sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file", "run", str(experiment)],
        }[kill.path]
        if kill.path == "chaos run":
            command[1:3] = [str(Path(sys.executable).with_name("chaos"))]
        variables = {"FRANGIBLE_ENVIRONMENT": environment}
        if kill.step:
            variables |= {"FRANGIBLE_PAUSE_AT": kill.step, "PYTHONPATH": str(PAUSING)}
        return self._command(command, variables, kill)

    def _command(self, words: list[str], variables: dict[str, str], kill: Kill) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            words,
            env={**os.environ, **variables, "FRANGIBLE_HOME": str(self.home.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.experiments[kill.fault].parent,
        )

    def _folder(self, starter: "subprocess.Popen[bytes]", environment: str) -> Path | None:
        """Wait for the folder of the run that `starter` began."""
        for _ in _patience():
            for path in sorted(self.home.runs.glob("*")):
                if path not in self._known and self._is_of(path, environment) and (path / "events.jsonl").exists():
                    self._known.add(path)
                    return path
            if starter.poll() is not None:
                return None
        return None

    @staticmethod
    def _is_of(path: Path, environment: str) -> bool:
        try:
            return f'\\"name\\":\\"{environment}\\"' in (path / "plan.json").read_text().replace(": ", ":")
        except OSError:
            return False

    def _reach(self, kill: Kill, folder: Path, starter: "subprocess.Popen[bytes]") -> None:
        """Wait for the step, the moment, or the end of the run, whichever is first."""
        end = time.monotonic() + kill.after
        for _ in _patience():
            processes = self._processes(folder, starter)
            if kill.path == FORKED and processes.keys().isdisjoint(OF_THE_RUN):
                return
            if kill.step and any(_status(process) == psutil.STATUS_STOPPED for process in processes.values()):
                return
            if not kill.step and time.monotonic() >= end:
                return
            if not processes:
                return

    def _processes(self, folder: Path, starter: "subprocess.Popen[bytes] | None") -> dict[str, psutil.Process]:
        """Return the run's live processes by role; under `chaos run` the starter is the runner."""
        found: dict[str, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if str(folder) in words:
                    found["supervisor" if "frangible.supervisor" in words else "runner"] = process
        if starter is not None and starter.poll() is None:
            with contextlib.suppress(psutil.Error):
                found["starter"] = psutil.Process(starter.pid)
                for server in _fork_server(starter):
                    found["server"] = server
                if "frangible.cli" not in found["starter"].cmdline():  # `chaos run` is the chaoslib process itself
                    found.setdefault("runner", found["starter"])
        return {role: process for role, process in found.items() if _status(process) != psutil.STATUS_ZOMBIE}

    def _kill(self, kill: Kill, folder: Path, starter: "subprocess.Popen[bytes]") -> None:
        processes = self._processes(folder, starter)
        for role in kill.victims:
            if role in processes:
                with contextlib.suppress(psutil.Error):
                    processes[role].kill()
        for role, process in processes.items():  # whoever stopped itself and was spared goes on
            if role not in kill.victims:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGCONT)

    def _until_clean(self, environment: str, killed_at: float, kill: Kill, folder: Path, starter: "subprocess.Popen[bytes]") -> float | None:
        """Let the survivors finish, recover where the supervisor was lost, and time until nothing is broken in the target."""
        clean_at: list[float] = []
        watcher = threading.Thread(target=self._watch_target, args=(environment, clean_at), daemon=True)
        lost = bool(self._broken(environment))
        watcher.start()
        awaited = OF_THE_RUN if kill.path == FORKED else {*OF_THE_RUN, "starter"}
        for _ in _patience():
            if self._processes(folder, starter).keys().isdisjoint(awaited):
                break
        for one in [self._recover(environment, folder.name) for _ in range(kill.recoveries if "supervisor" in kill.victims else 0)]:
            one.wait(LIMIT)
        watcher.join(LIMIT)
        return clean_at[0] - killed_at if lost and clean_at else None

    def _recover(self, environment: str, run: str) -> "subprocess.Popen[bytes]":  # noqa: ARG002 - one signature for the reader
        return subprocess.Popen(
            [sys.executable, "-m", "frangible.cli", "recover", "--run", run],
            env={**os.environ, "FRANGIBLE_HOME": str(self.home.path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _watch_target(self, environment: str, clean_at: list[float]) -> None:
        for _ in _patience():
            if not self._broken(environment):
                clean_at.append(time.monotonic())
                return

    def _environment(self, name: str) -> Environment:
        return self.inventory.get(name)

    def _broken(self, name: str) -> list[str]:
        """Say what is off, stopped, paused, burning or overloaded in the target."""
        environment = self._environment(name)
        platform = open_platform(environment)
        found = [f"node {node.name} is off" for node in environment.nodes if not platform.node(node.name).powered]
        found += [f"burner {burner} runs on {node.name}" for node in environment.nodes for burner in platform.burners(node.name)]
        if (rate := platform.load().rate) != self._rates[name]:
            found.append(f"{rate:g} a second are offered, before it were {self._rates[name]:g}")
        for target in candidates(environment, "service", Choice(service="execution")):
            try:
                state = platform.service(target.node, target.service)
            except PlatformError as error:  # its node has just been powered on
                found.append(str(error))
                continue
            found += [f"{target} does not run"] if not state.running else [f"{target} has stopped processes"] if state.stopped else []
        return found

    def _outcome_of(self, run: str) -> str:
        with contextlib.closing(Journal.open(self.home.journal_url)) as journal:
            found = {record.id: record for record in (*journal.runs(limit=None),)}
        return (found[run].outcome or "started") if run in found else "no row"

    def _leftovers(self, name: str, folder: Path) -> list[str]:
        """Look in the target first, then in the ledger and the journal."""
        environment = self._environment(name)
        platform = open_platform(environment)
        found = self._broken(name)
        found += [f"burner process {pid} of the run is alive" for pid in _burners(folder.name)]
        found += [f"lease copy {lease} is still there" for lease in platform.lease_copies() if lease.startswith(folder.name)]
        found += [f"process {process.pid} of the run is alive" for process in self._processes(folder, None).values()]
        found += [f"lock {holder.key} is held" for holder in platform.locks().holders() if holder.run_id == folder.name and holder.owner.is_alive()]
        with contextlib.closing(Ledger.open(self.home.ledger_url)) as ledger:
            found += [f"lease {lease.id} is {lease.state} in the ledger" for lease in ledger.open_leases(run_id=folder.name)]
        if self._outcome_of(folder.name) == "started":
            found.append("the journal's row is still open")
        return found


def _fork_server(starter: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Return the fork server that a command has started; no other process can be it."""
    with contextlib.suppress(psutil.Error):
        return [child for child in psutil.Process(starter.pid).children() if "frangible.warm" in child.cmdline()]
    return []


def _burners(run: str) -> list[int]:
    """Return the processes that burn CPU for a lease of this run, by the process table."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "frangible.burner" in words and any(run in word for word in words) and _status(process) != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return str(psutil.STATUS_ZOMBIE)


def _patience() -> Iterator[int]:
    """Count looks until the limit; the caller ends earlier when it has seen what it waits for."""
    end = time.monotonic() + LIMIT
    for look in itertools.count():
        if time.monotonic() > end:
            return
        yield look
        time.sleep(0.1)


def main() -> int:
    """Run the campaign; exit 0 when nothing was left over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only runs of this; may be given several times")
    parser.add_argument("--forked", action="store_true", help="start the runs two at a time, through the fork server")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same kills")
    parser.add_argument("--home", type=Path, default=None, help="home with a lab that is up; else one is brought up")
    parser.add_argument("--verbose", action="store_true", help="print a line for each kill")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    options = parser.parse_args()
    with lab(options.home) as home, tempfile.TemporaryDirectory(prefix="frangible-crash-") as folder:
        os.environ.pop("FRANGIBLE_JOURNAL", None)
        planned = list(kills(options.kills, options.seed, tuple(options.fault or MIX), forked=options.forked))
        outcomes = run_campaign(Campaign(home, Path(folder)), planned, verbose=options.verbose)
    report(outcomes, as_json=options.json)
    return 1 if any(outcome.leftovers for outcome in outcomes) else 0


def run_campaign(campaign: Campaign, planned: list[Kill], *, verbose: bool) -> list[Outcome]:
    """Do them in lanes, one after the other in each: two environments side by side, one for runs that need the machine alone, or pairs."""
    with Progress(disable=not sys.stderr.isatty()) as progress, ThreadPoolExecutor(len(ENVIRONMENTS)) as pool:
        task = progress.add_task("kills", total=len(planned))

        def tell(outcomes: list[Outcome], where: str) -> list[Outcome]:
            for outcome in outcomes:
                progress.advance(task)
                if outcome.leftovers or verbose:
                    print(f"{where}: {outcome}", file=sys.stderr)
            return outcomes

        def lane(environment: str, share: list[Kill]) -> list[Outcome]:
            return [outcome for kill in share for outcome in tell([campaign.execute(kill, environment)], environment)]

        forked = [kill for kill in planned if kill.path == FORKED]
        pairs = [forked[at : at + 2] for at in range(0, len(forked), 2)]
        done = [outcome for pair in pairs for outcome in tell(campaign.execute_together(pair), " and ".join(ENVIRONMENTS))]
        for alone, environments in ((False, ENVIRONMENTS), (True, ENVIRONMENTS[:1])):
            chosen = [kill for kill in planned if kill.path != FORKED and FAULTS[kill.fault].alone is alone]
            shares = [chosen[at :: len(environments)] for at in range(len(environments))]
            done += itertools.chain.from_iterable(pool.map(lane, environments, shares))
        return done


def report(outcomes: list[Outcome], *, as_json: bool) -> None:
    """Print counts, leftovers, and how long what was broken stayed broken."""
    times = sorted(outcome.clean_after for outcome in outcomes if outcome.clean_after is not None)
    left = [outcome for outcome in outcomes if outcome.leftovers]
    if as_json:
        print(json.dumps({"kills": len(outcomes), "left over": len(left), "outcomes": [asdict(outcome) for outcome in outcomes]}, indent=1))
        return
    print(f"kills: {len(outcomes)}, with something left over: {len(left)}")
    print("verdicts: " + ", ".join(f"{name} {count}" for name, count in sorted(Counter(outcome.verdict for outcome in outcomes).items())))
    if times:
        middle, longest = times[len(times) // 2], times[-1]
        print(f"target broken when killed: {len(times)} times; seconds until it was whole again: median {middle:.2f}, longest {longest:.2f}")
    for outcome in left:
        print(f"  #{outcome.kill.number} {outcome.kill}: {'; '.join(outcome.leftovers)}")


if __name__ == "__main__":
    sys.exit(main())
