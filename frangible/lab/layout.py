"""The estate that the lab builds: environments, their nodes, and where everything lies in the lab's one folder. Values only."""

from dataclasses import dataclass
from pathlib import Path

from frangible.errors import LabError

__all__ = ["ESTATE", "MACHINE", "OUTSIDE", "PARENTS", "EnvironmentSpec", "Folder", "NodeSpec", "ParentSpec", "chosen", "node_key"]

OUTSIDE = "outside"
"""The `node` label of what observes or loads an environment without being a target in it."""


MACHINE = "lab-host"
"""The one machine that all of it runs on; experiments that need its CPUs alone run one at a time."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node: a supervisord with the programs of its roles."""

    name: str
    roles: tuple[str, ...]
    """Of `nats`, `postgres`, `gateway`, `risk`, `execution`."""
    cpus: float
    """CPUs that the node declares; its utilisation and headroom refer to them."""


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """One environment of the estate. Environments differ only in what is written here."""

    name: str
    region: str
    exchange: str
    team: str
    nodes: tuple[NodeSpec, ...]
    parent: str
    rate: float = 40.0
    """Orders offered a second."""
    idempotent: bool = True
    """Whether execution writes an order that it gets twice only once."""
    reconnects: bool = True
    """Whether services connect again when NATS or PostgreSQL went away; those that do not are ended by their watchdog and started anew."""
    risk_work: float = 0.0
    """CPU seconds that the risk model takes for each order."""
    cpu_limit: bool = False
    """Whether a risk check keeps its node within the CPUs that it declares."""
    description: str = ""

    def nodes_with(self, role: str) -> tuple[NodeSpec, ...]:
        """Nodes that have a role, in order."""
        return tuple(node for node in self.nodes if role in node.roles)


@dataclass(frozen=True, slots=True)
class ParentSpec:
    """What environments have in common; nothing runs in it."""

    name: str
    region: str
    team: str


PARENTS = (ParentSpec("lab-americas", "newyork", "environments-newyork"), ParentSpec("lab-europe", "london", "environments-london"))

CORE = NodeSpec("core-1", ("nats", "postgres"), cpus=0.5)
TWO_OF_EACH = (CORE, *(NodeSpec(name, ("gateway", "risk", "execution"), cpus=0.5) for name in ("app-1", "app-2")))

ESTATE = (
    EnvironmentSpec(
        "lab-london",
        "london",
        "XLON",
        "environments-london",
        TWO_OF_EACH,
        parent="lab-europe",
        description="robust: every role that takes orders runs on two nodes",
    ),
    EnvironmentSpec(
        "lab-newyork",
        "newyork",
        "XNYS",
        "environments-newyork",
        (
            CORE,
            NodeSpec("app-1", ("gateway", "risk"), cpus=0.5),
            NodeSpec("app-2", ("gateway", "risk"), cpus=0.5),
            NodeSpec("exec-1", ("execution",), cpus=0.5),
        ),
        parent="lab-americas",
        description="fragile: execution runs on a single node",
    ),
    EnvironmentSpec(
        "lab-frankfurt",
        "frankfurt",
        "XETR",
        "environments-frankfurt",
        TWO_OF_EACH,
        parent="lab-europe",
        rate=25.0,
        reconnects=False,
        description="fragile: services do not reconnect to NATS and PostgreSQL",
    ),
    EnvironmentSpec(
        "lab-newyork-options",
        "newyork",
        "XCBO",
        "environments-newyork",
        (CORE, NodeSpec("app-1", ("gateway", "risk", "execution"), cpus=0.15), NodeSpec("app-2", ("gateway", "execution"), cpus=0.15)),
        parent="lab-americas",
        rate=25.0,
        risk_work=0.003,
        cpu_limit=True,
        description="fragile: the risk check has little CPU left",
    ),
    EnvironmentSpec(
        "lab-london-derivatives",
        "london",
        "IFEU",
        "environments-london",
        TWO_OF_EACH,
        parent="lab-europe",
        rate=25.0,
        idempotent=False,
        description="fragile: execution writes twice what it gets twice",
    ),
)


def chosen(names: tuple[str, ...]) -> tuple[EnvironmentSpec, ...]:
    """Return the environments of these names, all where there are none; raise `LabError` for a name that the estate does not have."""
    known = [spec.name for spec in ESTATE]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LabError(f"the lab has no environment {', '.join(unknown)}; choose among {', '.join(known)}")
    return tuple(spec for spec in ESTATE if not names or spec.name in names)


def node_key(environment: str, node: str) -> str:
    """Name a node across environments: node names are unique within one only."""
    return f"{environment}/{node}"


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths inside the lab's folder."""

    path: Path

    @property
    def state(self) -> Path:
        """Rack identity, ports, versions: what a later command needs to find the lab."""
        return self.path / "lab.json"

    @property
    def socket(self) -> Path:
        """The rack's Unix socket."""
        return self.path / "rack.sock"

    @property
    def lock(self) -> Path:
        """Held while `up` or `down` works."""
        return self.path / "lab.lock"

    @property
    def inventory(self) -> Path:
        """The estate as frangible's inventory."""
        return self.path / "inventory.yaml"

    @property
    def locks(self) -> Path:
        """Lock files of resource keys."""
        return self.path / "locks"

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.path / "logs"

    @property
    def prometheus(self) -> Path:
        """Prometheus's configuration and data."""
        return self.path / "prometheus"

    def environment(self, name: str) -> Path:
        """Everything of one environment."""
        return self.path / "environments" / name

    def targets(self, environment: str) -> Path:
        """Where lease copies lie, one folder a node; a powered-off node leaves it alone."""
        return self.environment(environment) / "targets"

    def node(self, environment: str, node: str) -> Path:
        """A node's own disk."""
        return self.environment(environment) / "nodes" / node

    def rate(self, environment: str) -> Path:
        """Orders a second that the generator offers; it follows changes."""
        return self.environment(environment) / "rate"

    def acknowledgements(self, environment: str) -> Path:
        """One line for each order that was acknowledged to the generator."""
        return self.environment(environment) / "acknowledged.log"

    def log(self, *names: str) -> Path:
        """The log of a process, such as `log("lab-london", "app-1", "gateway")`."""
        return self.logs / ("_".join(names) + ".log")
