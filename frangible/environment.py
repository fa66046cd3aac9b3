"""One environment as the inventory declares it: its owner, platform, Prometheus, nodes, services and limits."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from frangible.durations import Positive
from frangible.errors import UsageError
from frangible.template import check_label
from frangible.yamlfile import Declared

__all__ = [
    "WORKLOAD",
    "Basic",
    "CpuSettings",
    "Environment",
    "GrafanaSettings",
    "HttpSettings",
    "Limits",
    "LoadSettings",
    "Middleware",
    "Node",
    "NotifySettings",
    "Owner",
    "PlatformSettings",
    "PowerSettings",
    "PrometheusSettings",
    "Secret",
    "Service",
    "ServicesSettings",
    "SshSettings",
    "Volume",
    "WebhookSettings",
]


def _beside_the_file(value: Path, info: ValidationInfo) -> Path:
    """Relative paths of a file are relative to that file."""
    base = info.context.get("base") if info.context else None
    return (base / value.expanduser()).absolute() if base is not None else value


def _program(value: str, info: ValidationInfo) -> str:
    """The name of a program stays as it is; a path is relative to the file like every other."""
    return str(_beside_the_file(Path(value), info)) if "/" in value else value


def _label_name(name: str) -> str:
    check_label(name, "")
    return name


def _label_value(value: str) -> str:
    check_label("value", value)
    return value


def _header_name(name: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError("expected the name of an HTTP header, found characters that HTTP does not allow")
    return name


def _header_value(value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise ValueError("expected the value of an HTTP header, found characters that HTTP does not allow")
    return value


def _public_header(name: str) -> str:
    if CONFIDENTIAL.search(name):
        raise ValueError(f"the header {name!r} is confidential: put it under `secret-headers` with a `file` or `variable`")
    return _header_name(name)


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", value):
        raise ValueError("expected an address that begins with http:// or https:// and has no query; for a webhook with one use `secret-url`")
    if "@" in value.split("/")[2]:
        raise ValueError("expected an address without user and password; use `basic` with a `file` or `variable`")
    return value.rstrip("/")


WORKLOAD = r"(?:[a-z0-9-]+/)?(?:deployment|statefulset|daemonset)/[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
"""Pattern of a workload of Kubernetes: its kind and name, its namespace before them where that is not clear."""

type Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
type FilePath = Annotated[Path, AfterValidator(_beside_the_file)]
type Program = Annotated[str, Field(min_length=1), AfterValidator(_program)]
type Address = Annotated[str, AfterValidator(_address)]
type Labels = dict[Annotated[str, AfterValidator(_label_name)], Annotated[str, AfterValidator(_label_value)]]
type Headers = dict[Annotated[str, AfterValidator(_public_header)], Annotated[str, AfterValidator(_header_value)]]
type SecretHeaders = dict[Annotated[str, AfterValidator(_header_name)], "Secret"]
type ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
type Workload = Annotated[str, Field(pattern=rf"^{WORKLOAD}$", description="`deployment/NAME`, `statefulset/NAME` or `daemonset/NAME`")]
type Exchange = Annotated[str, Field(pattern=r"^[A-Z0-9]{4}$", description="market identifier code (ISO 10383)")]

NOWHERE = Path()
"""A path that was not given; a file's own paths are made absolute, so none of them is equal to it."""
SSH_HOST = r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?)"
"""Pattern of a host name, an IPv4 address, or an IPv6 address."""
SSH_JUMP = r"^(?:[A-Za-z0-9][A-Za-z0-9._-]*@)?(?:[A-Za-z0-9_][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?$"
CONFIDENTIAL = re.compile(r"authori[sz]ation|cookie|token|key|secret|password|credential", re.IGNORECASE)
"""Header names whose values must not stand in a file."""


class Secret(Declared):
    """Where a secret is: a file or an environment variable. The value is read when it is needed and never kept."""

    file: FilePath | None = Field(default=None, description="file that holds the secret; surrounding white space is dropped")
    variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable that holds the secret")

    @model_validator(mode="before")
    @classmethod
    def _no_literal(cls, value: object) -> object:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, dict):
            raise ValueError("expected {file: PATH} or {variable: NAME}, found the value itself (not shown)")  # noqa: TRY004 pydantic reports ValueError
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.file is None) == (self.variable is None):
            raise ValueError("expected either `file` or `variable`, found both or neither")
        return self

    def reveal(self) -> str:
        """Read the secret now; raise `UsageError` when it is not there."""
        if self.variable is not None:
            return self._checked(os.environ.get(self.variable, ""), f"environment variable {self.variable}")
        try:
            text = self._path().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the secret file {self.file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from None
        return self._checked(text, f"secret file {self.file}")

    def _path(self) -> Path:
        if self.file is None:
            raise UsageError("this secret names no file")
        return self.file

    @staticmethod
    def _checked(text: str, source: str) -> str:
        value = text.strip()
        if not value:
            raise UsageError(f"the {source} should hold a secret and is missing or empty")
        if any(character in value for character in "\r\n\0"):
            raise UsageError(f"the {source} should hold a secret of one line and holds several")
        return value


class Basic(Declared):
    """HTTP basic authentication."""

    user: str
    password: Secret


class Owner(Declared):
    """Who answers for an environment."""

    team: str = Field(min_length=1)
    contact: str = Field(default="", description="address, channel or pager of the team")


class Node(Declared):
    """One machine, virtual or not, that can be lost as a whole."""

    name: Name
    roles: tuple[Name, ...] = Field(default=(), description="what the node does; experiments choose targets by role")
    cpus: float | None = Field(default=None, gt=0, description="CPUs that the node may use")


class Service(Declared):
    """One of the firm's own services."""

    name: Name
    version: str = ""
    role: Name | None = Field(default=None, description="runs on every node of this role")
    nodes: tuple[Name, ...] = Field(default=(), description="runs on these nodes")
    workload: Workload | None = Field(default=None, description="kubernetes: what runs it; the one labelled app.kubernetes.io/name=NAME otherwise")


class Middleware(Declared):
    """One package that services stand on: a broker, a database."""

    name: Name
    version: str = Field(default="", description="text; write 2.10 in quotes")
    nodes: tuple[Name, ...] = ()
    workload: Workload | None = Field(default=None, description="kubernetes: what runs it; the one labelled app.kubernetes.io/name=NAME otherwise")


class Limits(Declared):
    """How much of an environment one run may take away at once (the blast radius)."""

    nodes_at_once: int = Field(default=1, ge=0)
    share_of_role: float = Field(default=0.5, ge=0, le=1, description="of the nodes of one role")
    load_at_most: float = Field(default=3.0, ge=1, description="times the load that is offered before")


class PowerSettings(Declared):
    """How nodes are powered off and on."""

    driver: Literal["rack", "command", "container"]
    socket: FilePath = Field(default=NOWHERE, description="rack: its Unix socket")
    runtime: Program | None = Field(default=None, description="container: `podman`, `docker`, or the path of a program that takes their arguments")
    on: tuple[str, ...] = Field(default=(), description="command: argument list that powers {node} on")
    off: tuple[str, ...] = Field(default=(), description="command: argument list that powers {node} off")
    state: tuple[str, ...] = Field(default=(), description="command: argument list that prints the state of {node}")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        commands = {"on": self.on, "off": self.off, "state": self.state}
        others = {name for name, there in (("socket", self.socket != NOWHERE), ("runtime", self.runtime is not None)) if there}
        given = {name for name, command in commands.items() if command} | others
        wanted = {"rack": {"socket"}, "container": {"runtime"}, "command": set(commands)}[self.driver]
        if given != wanted:
            listed = ", ".join(f"`{name}`" for name in sorted(wanted))
            raise ValueError(f"expected exactly {listed} for the driver {self.driver!r}, found {', '.join(sorted(given)) or 'none'}")
        for name, command in commands.items():
            if command and not any("{node}" in argument for argument in command):
                raise ValueError(f"expected `{{node}}` in an argument of `{name}`; without it the command would mean no node or every node")
        return self


class CpuSettings(Declared):
    """Who runs the processes that hold a node's CPUs at a utilisation."""

    driver: Literal["rack", "host"] = Field(description="`rack`: the lab's; `host`: processes on this very host, which is then the node")
    socket: FilePath = Field(default=NOWHERE, description="rack: its Unix socket")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.driver == "rack") != (self.socket != NOWHERE):
            raise ValueError("expected `socket` for the driver 'rack', and nothing more for 'host'")
        return self


class ServicesSettings(Declared):
    """How services are looked at, stopped, started and paused."""

    driver: Literal["rack", "command"]
    socket: FilePath = Field(default=NOWHERE, description="rack: its Unix socket")
    start: tuple[str, ...] = Field(default=(), description="command: argument list that starts {service} on {node}")
    stop: tuple[str, ...] = Field(default=(), description="command: argument list that has {service} end by itself, within {grace} seconds")
    kill: tuple[str, ...] = Field(default=(), description="command: argument list that kills {service} at once, so that it stays stopped")
    state: tuple[str, ...] = Field(default=(), description="command: argument list that prints `running`, `stopped` or `paused`, then the main process's id")
    pause: tuple[str, ...] = Field(default=(), description="command: argument list that sends SIGSTOP to every process of {service}")
    resume: tuple[str, ...] = Field(default=(), description="command: argument list that sends SIGCONT to every process of {service}")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        commands = {"start": self.start, "stop": self.stop, "kill": self.kill, "state": self.state, "pause": self.pause, "resume": self.resume}
        given = {name for name, command in commands.items() if command} | ({"socket"} if self.socket != NOWHERE else set())
        pausing = {"pause", "resume"} if self.driver == "command" and given & {"pause", "resume"} else set()
        wanted = ({"socket"} if self.driver == "rack" else {"start", "stop", "kill", "state"}) | pausing
        if given != wanted:
            listed = ", ".join(f"`{name}`" for name in sorted(wanted))
            raise ValueError(f"expected exactly {listed} for the driver {self.driver!r}, found {', '.join(sorted(given)) or 'none'}")
        for name, command in commands.items():
            for mark in ("{node}", "{service}") if command else ():
                if not any(mark in argument for argument in command):
                    raise ValueError(f"expected `{mark}` in an argument of `{name}`; without it the command would mean none or every one")
        return self


class LoadSettings(Declared):
    """How the load that an environment is offered is read and set."""

    driver: Literal["rack", "command", "configmap"]
    socket: FilePath = Field(default=NOWHERE, description="rack: its Unix socket")
    name: ObjectName | None = Field(default=None, description="configmap: the ConfigMap in which the generator reads its rate")
    key: str = Field(default="", description="configmap: the key of the rate")
    read: tuple[str, ...] = Field(default=(), description="command: argument list that prints how many a second are offered")
    set: tuple[str, ...] = Field(default=(), description="command: argument list that has {rate} a second offered")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        fields = {"socket": self.socket != NOWHERE, "read": bool(self.read), "set": bool(self.set), "name": self.name is not None, "key": bool(self.key)}
        given = {name for name, there in fields.items() if there}
        wanted = {"rack": {"socket"}, "command": {"read", "set"}, "configmap": {"name", "key"}}[self.driver]
        if given != wanted:
            listed = ", ".join(f"`{name}`" for name in sorted(wanted))
            raise ValueError(f"expected exactly {listed} for the driver {self.driver!r}, found {', '.join(sorted(given)) or 'none'}")
        if self.set and not any("{rate}" in argument for argument in self.set):
            raise ValueError("expected `{rate}` in an argument of `set`; without it the command would not know what to offer")
        return self


class SshSettings(Declared):
    """How the host of the targets is reached with OpenSSH. Host keys are always checked; a password is never asked for."""

    host: Annotated[str, Field(pattern=rf"^{SSH_HOST}$")] = Field(description="name or address, or a `Host` of the ssh configuration")
    port: int | None = Field(default=None, ge=1, le=65535)
    user: Name | None = None
    identity_file: FilePath | None = Field(default=None, description="file that holds the private key; the ssh agent's and ssh's own otherwise")
    known_hosts: FilePath | None = Field(default=None, description="file with the host's key; ssh's own otherwise")
    config_file: FilePath | None = Field(default=None, description="ssh configuration to use instead of the user's")
    jump: Annotated[str, Field(pattern=SSH_JUMP)] | None = Field(default=None, description="`user@host:port` to go through; its key is checked as well")


HOSTS_ONLY = ("transport", "ssh", "root", "locks", "cpu", "services")
"""Keys of `platform` that Kubernetes has no use for: it switches services and holds CPUs by itself."""
KUBERNETES_ONLY = ("kubeconfig", "context", "namespaces", "namespace-selector", "namespace", "node-selector", "helper-image")


class PlatformSettings(Declared):
    """How nodes and services of an environment are reached."""

    kind: Literal["hosts", "kubernetes"]
    transport: Literal["local", "ssh"] = "local"
    ssh: SshSettings | None = Field(default=None, description="transport ssh: the host that holds `root` and `locks`")
    root: FilePath = Field(default=NOWHERE, description="hosts: folder on the target that holds lease copies, one folder a node")
    locks: FilePath = Field(default=NOWHERE, description="hosts: folder that holds the lock files of every environment there")
    kubeconfig: FilePath | None = Field(default=None, description="kubernetes: its file; else KUBECONFIG, ~/.kube/config, or the pod's service account")
    context: str = Field(default="", description="kubernetes: context of the kubeconfig; its current one otherwise")
    namespaces: tuple[ObjectName, ...] = Field(default=(), description="kubernetes: where the environment's workloads are")
    namespace_selector: str = Field(default="", description="kubernetes: labels of the namespaces where they are, such as `team=equities`")
    namespace: ObjectName = Field(default="frangible", description="kubernetes: where lease copies, locks and pods of frangible are")
    node_selector: str = Field(default="", description="kubernetes: labels of the nodes of the environment; those that its pods run on otherwise")
    helper_image: str = Field(default="", description="kubernetes: image of the pods that act on a node: Python and frangible; without it only the API acts")
    power: PowerSettings | None = Field(default=None, description="how nodes are powered off and on; without it no node can be lost")
    cpu: CpuSettings | None = Field(default=None, description="who holds a node's CPUs at a utilisation; without it none can be saturated")
    services: ServicesSettings | None = Field(default=None, description="how services are switched; without it none can be restarted or paused")
    load: LoadSettings | None = Field(default=None, description="how the offered load is read and set; without it it cannot be raised")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        self._complete_kind()
        missing = [f"`{name}`" for name, path in (("root", self.root), ("locks", self.locks)) if path == NOWHERE]
        if self.kind == "hosts" and missing:
            raise ValueError(f"expected {' and '.join(missing)} for the platform 'hosts', found none")
        if (self.transport == "ssh") != (self.ssh is not None):
            raise ValueError(
                f"expected `ssh` with the transport 'ssh' and only with it, found transport {self.transport!r} {'with' if self.ssh else 'without'} it"
            )
        if self.ssh is not None and self.cpu is not None and self.cpu.driver == "host":
            raise ValueError("expected `cpu` with the driver 'rack' for the transport 'ssh', found 'host', which would burn the CPUs of this very host")
        return self

    def _complete_kind(self) -> None:
        """Refuse what belongs to the other kind of platform."""
        strange = [f"`{name}`" for name in (HOSTS_ONLY if self.kind == "kubernetes" else KUBERNETES_ONLY) if self._gives(name)]
        if strange:
            other = "hosts" if self.kind == "kubernetes" else "kubernetes"
            raise ValueError(f"{', '.join(strange)} belongs to the platform {other!r} and means nothing for {self.kind!r}: remove it, or change `kind`")
        if self.kind == "kubernetes" and bool(self.namespaces) == bool(self.namespace_selector):
            raise ValueError("expected either `namespaces` or `namespace-selector` for the platform 'kubernetes', found both or neither")
        self._complete_drivers()

    def _gives(self, key: str) -> bool:
        name = key.replace("-", "_")
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    def _complete_drivers(self) -> None:
        """Refuse drivers that the platform has no use for: a rack runs hosts, containers and ConfigMaps are a cluster's."""
        drivers = {"power": self.power.driver if self.power else None, "load": self.load.driver if self.load else None}
        strange = {"rack"} if self.kind == "kubernetes" else {"container", "configmap"}
        for key, driver in drivers.items():
            if driver in strange:
                raise ValueError(f"the driver {driver!r} of `{key}` is none of the platform {self.kind!r}; choose another, such as 'command'")


class PrometheusSettings(Declared):
    """Where an environment's indicators are read."""

    url: Address
    ca_file: FilePath | None = Field(default=None, description="certificates to trust instead of the system's")
    bearer: Secret | None = Field(default=None, description="bearer token")
    basic: Basic | None = None
    headers: Headers = Field(default_factory=dict, description="headers of each request, such as a tenant's X-Scope-OrgID; nothing confidential")
    secret_headers: SecretHeaders = Field(default_factory=dict, description="headers of each request whose values are secrets")
    proxy: Address | None = None
    timeout: Positive = Field(default=5.0, description="deadline of one request")
    scrape_interval: Positive | None = Field(default=None, description="how often it scrapes; lets validation say exactly what evidence a window can give")
    runs_on: str = Field(default="outside", description="`outside`, or the node that Prometheus runs on, or on Kubernetes the workload that runs it")

    @model_validator(mode="after")
    def _one_authentication(self) -> Self:
        if self.bearer is not None and self.basic is not None:
            raise ValueError("expected `bearer` or `basic`, found both")
        return self


class HttpSettings(Declared):
    """How a system is reached over HTTP."""

    ca_file: FilePath | None = Field(default=None, description="certificates to trust instead of the system's")
    proxy: Address | None = None
    timeout: Positive = Field(default=5.0, description="deadline of one request")


class WebhookSettings(HttpSettings):
    """Gets a JSON object when a fault begins and when it is over."""

    url: Address | None = None
    secret_url: Secret | None = Field(default=None, description="the address, where it is a secret itself")
    headers: Headers = Field(default_factory=dict, description="headers of each request; nothing confidential")
    secret_headers: SecretHeaders = Field(default_factory=dict, description="headers of each request whose values are secrets")

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.secret_url is None):
            raise ValueError("expected either `url` or `secret-url`, found both or neither")
        return self


class GrafanaSettings(HttpSettings):
    """Gets an annotation when a fault begins, which becomes a region when it is over."""

    url: Address
    bearer: Secret = Field(description="token of a service account that may write annotations")
    dashboard: str = Field(default="", description="UID of the dashboard; else the whole organisation sees it")
    panel: int | None = Field(default=None, description="number of the panel on the dashboard")
    tags: tuple[str, ...] = Field(default=(), description="beside `frangible`, `environment:`, `experiment:`, `fault:` and `run:`")


class NotifySettings(Declared):
    """Who is told when a fault begins and when it is over. A run never waits for them and never fails with them."""

    webhook: WebhookSettings | None = None
    grafana: GrafanaSettings | None = None

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.webhook is None and self.grafana is None:
            raise ValueError("expected `webhook`, `grafana` or both, found neither")
        return self


class Volume(Declared):
    """What an environment has to take at its busiest."""

    highest_per_second: float = Field(gt=0, description="highest number of messages a second in the previous six months")
    metric: str = Field(default="", description="where that number comes from, for whoever brings it up to date")


class Environment(Declared):
    """The unit that is judged: one parent or child cluster. Inheritance is already applied."""

    name: Name
    parent: Name | None = Field(default=None, description="environment whose values count where this one gives none")
    region: Name
    tier: Literal["staging", "production", "development"] = Field(description="`staging`, `production` or `development`; faults are injected in staging only")
    owner: Owner = Field(description="the team that answers for it")
    exchanges: tuple[Exchange, ...] = Field(default=(), description="exchanges it trades on")
    platform: PlatformSettings = Field(description="how its nodes are reached")
    prometheus: PrometheusSettings | None = None
    labels: Labels = Field(default_factory=dict, description="Prometheus matchers that select exactly this environment's series")
    nodes: tuple[Node, ...] = ()
    services: tuple[Service, ...] = ()
    middleware: tuple[Middleware, ...] = ()
    shares: tuple[Name, ...] = Field(default=(), description="resources used together with other environments; runs on them exclude each other")
    machine: Name | None = Field(default=None, description="machine that its nodes share with others'; who needs one of its parts alone excludes who does too")
    volume: Volume | None = Field(default=None, description="the highest volume of the previous six months; a surge offers twice that")
    limits: Limits = Field(default_factory=Limits)
    notify: NotifySettings | None = Field(default=None, description="who is told when a fault begins and when it is over")

    def nodes_of(self, role: str) -> tuple[Node, ...]:
        """Return the nodes that have a role."""
        return tuple(node for node in self.nodes if role in node.roles)
