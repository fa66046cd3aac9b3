"""A real sshd on loopback, with keys and configuration of its own; nothing of the user's or of the machine's ssh is read."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from frangible.environment import SshSettings

__all__ = ["Server", "key", "listening", "masters", "over", "until"]

LOCAL = Path(__file__).parents[1] / ".cache" / "openssh"


def programs() -> str:
    """PATH with the OpenSSH that the set-up made first: FRANGIBLE_OPENSSH, then `.cache/openssh`, then what is installed."""
    return os.pathsep.join([os.environ.get("FRANGIBLE_OPENSSH") or str(LOCAL), os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])


def sshd_binary() -> str:
    """Where sshd is; skip the test where it or the client is missing."""
    for name in ("ssh", "ssh-keygen", "sshd"):
        if shutil.which(name, path=programs()) is None:
            pytest.skip(f"no {name}: not in FRANGIBLE_OPENSSH, in .cache/openssh or on PATH (`make openssh` says why)")
    return str(shutil.which("sshd", path=programs()))


def key(path: Path) -> str:
    """Make a key pair; return the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, stdin=subprocess.DEVNULL)
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


def until(true: Callable[[], object]) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Server:
    """One sshd. Clients use the key `key`, and know it by the file `known`."""

    folder: Path
    address: str = "127.0.0.1"
    port: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    """Command line that starts it elsewhere, such as in a network namespace."""
    process: "subprocess.Popen[bytes] | None" = None

    def __post_init__(self) -> None:
        """Make keys and configuration."""
        self.binary = sshd_binary()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd of the distribution separates its privileges there
        self.folder.mkdir(parents=True)
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        host, user = key(self.folder / "host"), key(self.folder / "key")
        (self.folder / "authorized").write_text(user + "\n")
        (self.folder / "known").write_text(f"[{self.address}]:{self.port} {host}\n")
        options = {
            "Port": str(self.port),
            "ListenAddress": self.address,
            "HostKey": str(self.folder / "host"),
            "AuthorizedKeysFile": str(self.folder / "authorized"),
            "PidFile": "none",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "StrictModes": "no",
            "PermitRootLogin": "prohibit-password",
            "SetEnv": f"HOME={self.folder}",  # a login shell reads its start-up files there, and finds none
            **self.options,
        }
        (self.folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))

    def start(self) -> None:
        """Listen."""
        command = [*self.within, self.binary, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self.listens)

    def listens(self) -> bool:
        """Whether connections are taken; it must not have ended."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "sshd.log").read_text()
        with socket.socket() as connection:
            connection.settimeout(1)
            return connection.connect_ex((self.address, self.port)) == 0

    def stop(self) -> None:
        """End the listener and every connection that it has."""
        if self.process is not None:
            for child in [*self.sessions(), self.process.pid]:
                with suppress(ProcessLookupError):  # a connection that has just ended by itself
                    os.kill(child, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def sessions(self) -> list[int]:
        """Process ids of its connections."""
        assert self.process is not None
        return [child.pid for child in psutil.Process(self.process.pid).children()]

    @property
    def settings(self) -> SshSettings:
        """How it is reached."""
        return SshSettings(
            host=self.address,
            port=self.port,
            user=getpass.getuser(),
            identity_file=self.folder / "key",
            known_hosts=self.folder / "known",
            config_file=Path("/dev/null"),
        )


@contextmanager
def listening(folder: Path, address: str = "127.0.0.1", port: int = 0, within: tuple[str, ...] = ()) -> Iterator[Server]:
    """Run a server, with the shared connections to it in a folder of their own, and end all of it."""
    patch = pytest.MonkeyPatch()
    runtime = Path(f"/tmp/fr-{os.getpid()}-{os.urandom(3).hex()}")  # a control socket's path is short
    runtime.mkdir(mode=0o700)
    patch.setenv("XDG_RUNTIME_DIR", str(runtime))
    patch.setenv("PATH", programs())
    server = None
    try:
        server = Server(folder, address, port, within=within)
        server.start()
        yield server
    finally:
        if server is not None:
            server.stop()
        for process in masters(runtime):
            process.kill()
        shutil.rmtree(runtime)
        patch.undo()


def masters(below: Path | str) -> list[psutil.Process]:
    """Processes that hold shared connections, whose sockets lie below a folder or are this one."""
    return [one for one in psutil.process_iter(["cmdline"]) if " ".join(one.info["cmdline"] or []).startswith(f"ssh: {below}")]


def over(process: psutil.Process) -> bool:
    """Whether a process has ended, whoever may have to take note of that still."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
