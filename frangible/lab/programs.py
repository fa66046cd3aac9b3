"""What runs in the lab: the programs of each node, and those outside all nodes, with commands, settings and health."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from frangible.lab.layout import OUTSIDE, EnvironmentSpec, Folder, NodeSpec, node_key
from frangible.lab.services.settings import Settings
from frangible.lab.state import LabState

__all__ = ["Program", "node_programs", "outside_programs", "port_names", "prometheus_program", "scraped_programs"]

SERVICES = ("gateway", "risk", "execution")


@dataclass(frozen=True, slots=True)
class Program:
    """One process that the lab starts."""

    name: str
    command: tuple[str, ...]
    port: int
    """Where it shows that it is healthy."""
    health: str | None = None
    """HTTP path that answers 200 when healthy; None where an open port is enough."""
    stop_signal: str = "TERM"
    """Asks it to end by itself."""
    settings: Settings | None = None
    """Of our own services: what is written to `settings_file` before they start."""
    settings_file: Path | None = None


def port_names(estate: tuple[EnvironmentSpec, ...]) -> list[str]:
    """Every port that a lab needs, by the name under which it is stored."""
    names = ["prometheus"]
    for environment in estate:
        names += [f"{environment.name}/{program}" for program in ("generator", "auditor")]
        for node in environment.nodes:
            key = node_key(environment.name, node.name)
            names.append(f"{key}/supervisord")
            names += [f"{key}/{role}" for role in node.roles]
            names += [f"{key}/{extra}" for role, extra in (("gateway", "orders"), ("nats", "nats-monitor")) if role in node.roles]
    return names


def _settings(state: LabState, environment: EnvironmentSpec, node: str, service: str) -> Settings:
    ports, folder = state.ports, Folder(state.folder)
    key = f"{environment.name}/{service}" if node == OUTSIDE else f"{environment.name}/{node}/{service}"
    nats, postgres = (f"{environment.name}/{environment.nodes_with(role)[0].name}/{role}" for role in ("nats", "postgres"))
    return Settings(
        environment=environment.name,
        node=node,
        port=ports[key],
        nats=f"nats://127.0.0.1:{ports[nats]}",
        postgres=f"postgresql://postgres:{state.password}@127.0.0.1:{ports[postgres]}/postgres",
        orders_port=ports[f"{environment.name}/{node}/orders"] if service == "gateway" else 0,
        gateways=tuple(f"127.0.0.1:{ports[f'{environment.name}/{gateway.name}/orders']}" for gateway in environment.nodes_with("gateway")),
        rate_file=str(folder.rate(environment.name)),
        acknowledged_file=str(folder.acknowledgements(environment.name)),
        idempotent=environment.idempotent,
        reconnects=environment.reconnects,
        risk_work=environment.risk_work,
        cpu_limit=next((spec.cpus for spec in environment.nodes if spec.name == node and environment.cpu_limit), None),
    )


def _service(state: LabState, environment: EnvironmentSpec, node: str, service: str) -> Program:
    folder = Folder(state.folder)
    base = folder.environment(environment.name) if node == OUTSIDE else folder.node(environment.name, node)
    file = base / f"{service}.json"
    settings = _settings(state, environment, node, service)
    command = (sys.executable, "-m", f"frangible.lab.services.{service}", str(file))
    return Program(service, command, settings.port, "/healthz", settings=settings, settings_file=file)


def _nats(state: LabState, environment: str, node: str) -> Program:
    store = Folder(state.folder).node(environment, node) / "jetstream"
    port, monitor = (state.ports[f"{environment}/{node}/{name}"] for name in ("nats", "nats-monitor"))
    command = (str(state.tools.nats), "-a", "127.0.0.1", "-p", str(port), "-m", str(monitor), "-js", "-sd", str(store), "-n", f"{environment}-{node}")
    return Program("nats", command, monitor, "/healthz")


def _postgres(state: LabState, environment: str, node: str) -> Program:
    port = state.ports[f"{environment}/{node}/postgres"]
    data = Folder(state.folder).node(environment, node) / "postgres"
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",  # a socket's path is limited to 107 bytes, a folder's is not
        "fsync": "off",  # power off kills processes, not the kernel: what was written is safe, and the disk is spared
        "shared_buffers": "16MB",
        "max_connections": "20",
        "autovacuum_naptime": "60",
        "jit": "off",
    }
    arguments = (part for name, value in options.items() for part in ("-c", f"{name}={value}"))
    command = (sys.executable, "-m", "frangible.lab.unprivileged", str(state.tools.postgres / "postgres"), "-D", str(data), *arguments)
    return Program("postgres", command, port, stop_signal="INT")  # TERM would wait until every client has left


def node_programs(state: LabState, environment: EnvironmentSpec, node: NodeSpec) -> Iterator[Program]:
    """Programs of one node, middleware first."""
    for role in node.roles:
        if role == "nats":
            yield _nats(state, environment.name, node.name)
        elif role == "postgres":
            yield _postgres(state, environment.name, node.name)
        else:
            yield _service(state, environment, node.name, role)


def outside_programs(state: LabState, environment: EnvironmentSpec) -> tuple[Program, ...]:
    """What loads and audits one environment from outside."""
    return tuple(_service(state, environment, OUTSIDE, name) for name in ("generator", "auditor"))


def prometheus_program(state: LabState) -> Program:
    """The one Prometheus of the lab."""
    folder, port = Folder(state.folder).prometheus, state.ports["prometheus"]
    command = (
        str(state.tools.prometheus),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=6h",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    return Program("prometheus", command, port, "/-/ready")


def scraped_programs(state: LabState) -> Iterator[tuple[str, str, Program]]:
    """Environment, node and program of everything that exposes metrics."""
    for environment in state.estate:
        for node in environment.nodes:
            for program in node_programs(state, environment, node):
                if program.settings is not None:
                    yield environment.name, node.name, program
        for program in outside_programs(state, environment):
            yield environment.name, OUTSIDE, program
