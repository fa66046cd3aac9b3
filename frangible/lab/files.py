"""The files of a lab: configuration of supervisord, Prometheus and services, databases, and the inventory of the estate."""

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from frangible.errors import LabError
from frangible.lab.layout import MACHINE, PARENTS, EnvironmentSpec, Folder, NodeSpec, ParentSpec
from frangible.lab.programs import Program, node_programs, outside_programs, scraped_programs
from frangible.lab.state import LabState
from frangible.lab.unprivileged import USER

__all__ = ["alert_rules", "remove_data", "write_all"]

IN_TIME = 'sum by (environment) (rate(order_outcomes_total{outcome="in_time"}[5s]))'
ALERTS = {
    "OrdersLate": (f"{IN_TIME} / sum by (environment) (rate(order_outcomes_total[5s])) < 0.9", "3s", "fewer than nine in ten orders are in time"),
    "NodeDown": ('max by (environment, node) (up{environment!="",node!="outside"}) == 0', "3s", "nothing on the node answers"),
    "NatsDown": ("max by (environment) (nats_reachable) == 0", "2s", "the auditor has no connection to NATS"),
    "PostgresDown": ("max by (environment) (postgres_reachable) == 0", "2s", "PostgreSQL does not answer the auditor"),
    "ExecutionBacklog": ("max by (environment) (jetstream_consumer_pending) > 100", "3s", "orders pile up before execution"),
}
"""Alert to expression, how long it must be true, and what that means."""
LEVEL = """\
[supervisord]
logfile={log}
logfile_maxbytes=5MB
logfile_backups=1
pidfile=supervisord.pid
childlogdir=.
{user}
[inet_http_server]
port=127.0.0.1:{port}
username=lab
password={password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""
PROGRAM = """
[program:{name}]
command={command}
autorestart=true
startsecs=1
startretries=1000000
stopsignal={signal}
stopwaitsecs=3600
redirect_stderr=true
stdout_logfile={log}
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=1
"""


def _literal(text: str) -> str:
    """Supervisord expands `%(name)s` in values."""
    return text.replace("%", "%%")


def _seen_from(home: Path, file: Path) -> str:
    """A node's supervisord works in the node's own folder."""
    return str(file.relative_to(home, walk_up=True))


def _write_node(state: LabState, environment: EnvironmentSpec, node: NodeSpec) -> None:
    folder = Folder(state.folder)
    home = folder.node(environment.name, node.name)
    home.mkdir(parents=True, exist_ok=True)
    (folder.targets(environment.name) / node.name).mkdir(parents=True, exist_ok=True)
    text = LEVEL.format(
        log=_seen_from(home, folder.log(environment.name, node.name, "supervisord")),
        user="user=root\n" if os.geteuid() == 0 else "",
        port=state.ports[f"{environment.name}/{node.name}/supervisord"],
        password=state.password,
    )
    for program in node_programs(state, environment, node):
        _write_settings(program)
        log = folder.log(environment.name, node.name, program.name)
        command = _literal(shlex.join(program.command))
        text += PROGRAM.format(name=program.name, command=command, signal=program.stop_signal, log=_seen_from(home, log))
    configuration = home / "supervisord.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(text)


def _write_settings(program: Program) -> None:
    if program.settings is not None and program.settings_file is not None:
        program.settings_file.parent.mkdir(parents=True, exist_ok=True)
        program.settings.write(program.settings_file)


def alert_rules() -> dict[str, Any]:
    """The lab's alerts, evaluated every second, each labelled by environment."""
    rules = [
        {"alert": name, "expr": expression, "for": wait, "labels": {"severity": "page"}, "annotations": {"summary": summary}}
        for name, (expression, wait, summary) in ALERTS.items()
    ]
    return {"groups": [{"name": "lab", "interval": "1s", "rules": rules}]}


def _write_prometheus(state: LabState) -> None:
    jobs: dict[str, list[dict[str, Any]]] = {}
    for environment, node, program in scraped_programs(state):
        target = {"targets": [f"127.0.0.1:{program.port}"], "labels": {"environment": environment, "node": node, "service": program.name}}
        jobs.setdefault(program.name, []).append(target)
    jobs["prometheus"] = [{"targets": [f"127.0.0.1:{state.ports['prometheus']}"]}]
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "900ms"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [{"job_name": job, "static_configs": targets} for job, targets in jobs.items()],
    }
    folder = Folder(state.folder).prometheus
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alerts.yml").write_text(yaml.safe_dump(alert_rules(), sort_keys=False))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration, sort_keys=False))


def _parent_entry(state: LabState, spec: ParentSpec) -> dict[str, Any]:
    """What children inherit where they give nothing of their own."""
    folder = Folder(state.folder)
    return {
        "name": spec.name,
        "region": spec.region,
        "tier": "staging",
        "owner": {"team": spec.team, "contact": f"{spec.team}@lab.invalid"},
        "platform": {"kind": "hosts", "transport": "local", "root": str(folder.targets(spec.name)), "locks": str(folder.locks)},
        "prometheus": {"url": state.prometheus_url, "runs-on": "outside"},
        "labels": {"environment": spec.name},
        "machine": MACHINE,
    }


def _inventory_entry(state: LabState, spec: EnvironmentSpec) -> dict[str, Any]:
    folder, versions = Folder(state.folder), state.tools.versions
    roles = dict.fromkeys(role for node in spec.nodes for role in node.roles)
    names = {role: [node.name for node in spec.nodes_with(role)] for role in roles}
    middleware = {"nats": versions["nats"], "postgres": versions["postgres"]}
    return {
        "name": spec.name,
        "parent": spec.parent,
        "region": spec.region,
        "owner": {"team": spec.team, "contact": f"{spec.team}@lab.invalid"},
        "exchanges": [spec.exchange],
        "platform": {
            "kind": "hosts",
            "transport": "local",
            "root": str(folder.targets(spec.name)),
            "locks": str(folder.locks),
            "power": {"driver": "rack", "socket": str(folder.socket)},
            "cpu": {"driver": "rack", "socket": str(folder.socket)},
            "services": {"driver": "rack", "socket": str(folder.socket)},
            "load": {"driver": "rack", "socket": str(folder.socket)},
        },
        "volume": {"highest-per-second": spec.rate, "metric": "orders_offered_total"},
        "labels": {"environment": spec.name},
        "nodes": [{"name": node.name, "roles": list(node.roles), "cpus": node.cpus} for node in spec.nodes],
        "services": [{"name": role, "version": version("frangible"), "role": role, "nodes": names[role]} for role in roles if role not in middleware],
        "middleware": [
            *({"name": name, "version": found, "nodes": names[name]} for name, found in middleware.items()),
            {"name": "supervisor", "version": version("supervisor"), "nodes": [node.name for node in spec.nodes]},
        ],
    }


def _write_inventory(state: LabState) -> None:
    used = {spec.parent for spec in state.estate}
    parents = [_parent_entry(state, parent) for parent in PARENTS if parent.name in used]
    entries = {"environments": [*parents, *(_inventory_entry(state, spec) for spec in state.estate)]}
    head = "# The embedded lab, as `frangible lab up` built it.\n"
    state.inventory.write_text(head + yaml.safe_dump(entries, sort_keys=False))


def _give_to_server(path: Path) -> None:
    """PostgreSQL's files belong to the user that it runs as."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _create_database(state: LabState, data: Path, log: Path) -> None:
    data.mkdir(mode=0o700)
    password = data.with_name("password")
    with contextlib.closing(os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT, 0o600), "w")) as stream:
        stream.write(state.password)
    _give_to_server(data)
    _give_to_server(password)
    options = ("-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
    command = (sys.executable, "-m", "frangible.lab.unprivileged", str(state.tools.postgres / "initdb"), "-D", str(data), *options)
    try:
        with log.open("w") as output:
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=60, check=True, cwd="/")
    except subprocess.SubprocessError as error:
        raise LabError(f"PostgreSQL's initdb could not make a database in {data}: {error}; read {log}") from error
    finally:
        password.unlink()


def _create_databases(state: LabState) -> None:
    folder = Folder(state.folder)
    places = [(spec.name, node.name) for spec in state.estate for node in spec.nodes_with("postgres")]

    def create(place: tuple[str, str]) -> None:
        _create_database(state, folder.node(*place) / "postgres", folder.log(*place, "initdb"))

    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(create, [place for place in places if not (folder.node(*place) / "postgres").exists()]))


def write_all(state: LabState) -> None:
    """Write everything that the rack needs to start the lab."""
    folder = Folder(state.folder)
    for path in (folder.logs, folder.locks):
        path.mkdir(parents=True, exist_ok=True)
    for spec in state.estate:
        for node in spec.nodes:
            _write_node(state, spec, node)
        for program in outside_programs(state, spec):
            _write_settings(program)
        folder.rate(spec.name).write_text("0\n")  # nothing is offered before somebody can take it
    _write_prometheus(state)
    _create_databases(state)
    _write_inventory(state)
    state.write()


def remove_data(folder: Path, *keep: Path) -> None:
    """Remove everything in a lab's folder but the entries to keep."""
    for entry in folder.iterdir():
        if entry in keep:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
