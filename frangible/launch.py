"""Start a run's supervisor and follow it.

CONTRACT (for cli/run.py)
prepare(experiment: Path, environment: Environment, inventory_path: Path, home: Home, note: str, ticket: str, hypotheses: Mapping[str, Hypothesis]) -> Plan      validates everything; InputError with all problems
start(plan: Plan, home: Home) -> RunHandle            starts the supervisor in a session of its own
RunHandle.run_id: str; .events() -> Iterator[Event] (ends when the supervisor ended); .abort(reason: str) -> None; .supervisor_pid
The handle's pipe is also the dead-man's switch: when the starter dies, the supervisor aborts the run and reverts.
follow(handle, ...) ends with a `verdict`, `refused` or `failed` event; when none came, the supervisor died: the caller recovers the run (recovery.recover_run) and ends with 3.
"""
