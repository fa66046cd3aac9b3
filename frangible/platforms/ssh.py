"""Hosts that are reached with the system's OpenSSH client: small fixed programs there, data as base64, one shared connection.

The other side needs a POSIX shell, coreutils 8.24 or later (`sync FILE`) and, for locks, util-linux's `flock`; for a rack there, its sshd has to
allow the forwarding of Unix sockets (`AllowStreamLocalForwarding`, which it does unless told otherwise). Nothing is installed there.
Each program and each request may be repeated: when a connection breaks, nobody knows whether the last one had its effect.
"""

import base64
import contextlib
import hashlib
import os
import re
import select
import shlex
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tenacity

from frangible.environment import SshSettings
from frangible.errors import PlatformError
from frangible.platforms.asking import accepted, exchange
from frangible.process import ProcessIdentity

__all__ = ["LOCK_DEADLINE", "NEEDED", "SshTransport"]

DEADLINE = 15.0
"""Seconds that one call may take, its repetitions included."""
LOCK_DEADLINE = 8.0
"""The same for locks: twice that, and a run that cannot renew its locks is stopped before they run out."""
CONNECT_SECONDS = 5
ALIVE_SECONDS = 2
"""Between questions whether the other side is still there; two without an answer end the connection."""
PERSIST_SECONDS = 60
"""How long a connection stays open after its last use."""
LOST = 255
"""What ssh ends with when it, and not the program over there, failed (ssh(1))."""
SHOWN = 300
NEEDED = ("base64", "cat", "date", "dirname", "flock", "ls", "mkdir", "mv", "rm", "sync", "tr", "uname", "wc")

# No single quote may occur in a program: it travels inside single quotes, so that every login shell hands it on unread.
MARK = "frangible-output"
"""Line before the output of a program: what a login shell's start-up files print comes before it."""
BEGIN = f"echo {MARK}; set -eu; " + 'decode() { printf %s "$1" | base64 -d; }; p=$(decode "$1"); d=$(dirname "$p"); '
READ = BEGIN + '[ -e "$p" ] || exit 44; c=$(base64 <"$p") || { [ -e "$p" ] || exit 44; exit 1; }; date +%s.%N; printf "%s\\n" "$c"'
# A connection that breaks ends the input like any other end of it: half of a file must not become the file.
WHOLE = 'for w in "$@"; do :; done; [ "$(wc -c <"$n")" -eq "$w" ] || exit 47; '
WRITE = (
    BEGIN + 'make() { [ -d "$1" ] || { make "$(dirname "$1")"; mkdir -p "$1"; sync "$(dirname "$1")"; }; }; make "$d"; '
    'n=$(decode "$2"); trap "rm -f \\"\\$n\\"" EXIT; base64 -d >"$n"; ' + WHOLE + 'sync "$n"; mv -f "$n" "$p"; sync "$d"'
)
DELETE = BEGIN + 'n=$(decode "$2"); [ -d "$d" ] || exit 0; rm -f "$p" "$n".*; sync "$d"'
ENTRIES = BEGIN + '[ -d "$p" ] || exit 0; ls -1 "$p"'
FACTS = (
    f"echo {MARK}; set -eu; uname -m; uname -r; getconf _NPROCESSORS_ONLN 2>/dev/null || echo unknown; "
    '( . /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-unknown}" ) || echo unknown'
)
SWAP = (
    BEGIN + 'mkdir -p "$d"; l=$(decode "$2"); exec 9>>"$l"; flock -w 3 9 || exit 45; found=-; '
    '[ ! -e "$p" ] || found=$(base64 <"$p" | tr -d "\\n"); [ "$found" = "$3" ] || { echo changed; exit 0; }; '
    'n=$(decode "$4"); base64 -d >"$n"; ' + WHOLE + 'sync "$n"; mv -f "$n" "$p"; sync "$d"; echo swapped'
)
CLOCK = f"echo {MARK}; date +%s.%N"
PROGRAMS = f'echo {MARK}; for p in "$@"; do command -v "$p" >/dev/null || echo "$p"; done'
IS_SOCKET = BEGIN + '[ -S "$p" ] || exit 44'
ORIGIN = f"echo {MARK}; set -eu; uname -n; cat /proc/sys/kernel/random/boot_id"
# A process that may not be seen must not be called gone (hidepid, proc(5)); process 1 is always there. A name may hold a line's end.
PROCESSES = ORIGIN + '; cat /proc/1/stat >/dev/null; for p in "$@"; do tr "\\n" " " <"/proc/$p/stat" 2>/dev/null && echo || :; done'
ABSENT, BUSY = 44, 45
PAUSE = 0.3
"""Seconds between two attempts."""
REPEATED = 2
"""How often a request to a rack is repeated whose connection ended without an answer."""


@dataclass(frozen=True, slots=True)
class _Ended:
    code: int
    output: str
    said: str


class _Lost(PlatformError):
    """The connection failed; another one may not."""


class SshTransport:
    """The transport over one host's OpenSSH server. Host keys are always checked, and nobody is ever asked for a password."""

    kind = "ssh"

    def __init__(self, settings: SshSettings, deadline: float = DEADLINE) -> None:
        """Keep the settings; nothing is reached yet."""
        self.settings = settings
        self.deadline = deadline
        self._options = _options(settings)

    def read(self, path: Path) -> str | None:
        """Return the text of a file, or None where there is none."""
        return self.look(path)[0]

    def write(self, path: Path, text: str) -> None:
        """Write beside the file, sync, rename over it, sync the folder."""
        unfinished = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
        self._run(f"write {path}", WRITE, _coded(path), _coded(unfinished), _size(text), data=_coded(text))

    def delete(self, path: Path) -> None:
        """Remove a file and its unfinished writes, and sync the folder; missing is fine."""
        self._run(f"delete {path}", DELETE, _coded(path), _coded(path.with_name(f".{path.name}")))

    def entries(self, folder: Path) -> tuple[str, ...]:
        """Return the names in a folder, sorted; names that start with a dot are unfinished writes."""
        return tuple(sorted(self._run(f"list {folder}", ENTRIES, _coded(folder)).output.splitlines()))

    def facts(self) -> Mapping[str, str]:
        """Ask uname(1), getconf(1) and os-release(5) of the host."""
        lines = self._run("look at the host", FACTS).output.splitlines()
        return dict(zip(("host.machine", "kernel.release", "cpu.count", "os.name"), [*lines, *["unknown"] * 4][:4], strict=True))

    def look(self, path: Path) -> tuple[str | None, float]:
        """Return the text of a file, or None, and the wall clock of the host that has it."""
        ended = self._run(f"read {path}", READ, _coded(path), fine=(0, ABSENT))
        if ended.code == ABSENT:
            return None, self.clock()
        moment, _, coded = ended.output.partition("\n")
        try:
            return base64.b64decode(coded).decode(), float(moment)
        except ValueError as error:
            raise PlatformError(f"{self._who(f'read {path}')}: the answer is no text that was written by us: {_short(ended.output)}") from error

    def swap(self, path: Path, expected: str | None, text: str) -> bool:
        """Replace a file durably if it still holds `expected` (None: is missing), under the flock of its sibling file; return whether it did."""
        beside = (path.with_suffix(".flock"), path.with_suffix(".new"))
        before = "-" if expected is None else _coded(expected)
        arguments = (_coded(path), _coded(beside[0]), before, _coded(beside[1]), _size(text))
        ended = self._run(f"change {path}", SWAP, *arguments, data=_coded(text), fine=(0, BUSY))
        if ended.code == BUSY:
            raise PlatformError(f"{self._who(f'change {path}')}: another process has been changing it for 3 s; `fuser {beside[0]}` there names it")
        return ended.output.strip() == "swapped"

    def clock(self) -> float:
        """Return the host's wall clock, in seconds since the epoch."""
        (line,) = self._lines("read the clock", CLOCK, 1)
        try:
            return float(line)
        except ValueError as error:
            raise PlatformError(f"{self._who('read the clock')}: expected seconds, got {_short(repr(line))}; is `date` there GNU's?") from error

    def origin(self) -> tuple[str, str]:
        """Return the host's own name and the id of its boot."""
        name, boot = self._lines("look at the host", ORIGIN, 2)
        return name, boot

    def processes_gone(self, processes: tuple[ProcessIdentity, ...], who: str) -> bool:
        """Look into the host's /proc; raise `PlatformError` for a process that ran on another host."""
        ended = self._run("look at processes", PROCESSES, *(str(process.pid) for process in processes))
        name, boot, *found = ended.output.splitlines()
        for process in processes:
            if process.host != name:
                raise PlatformError(
                    f"{who}: process {process.pid} ran on host {process.host}, but ssh to {self.settings.host} reaches {name}; ask on that host"
                )
        alive = {_living(line) for line in found if line.strip()}
        return not any(process.boot == boot and (process.pid, process.start) in alive for process in processes)

    def ask_rack(self, path: Path, request: Mapping[str, object], who: str, deadline: float) -> dict[str, object]:
        """Send one JSON line to a rack's Unix socket on the host, through the shared connection; again when that is lost."""
        until, ended_early = time.monotonic() + deadline, 0
        while True:
            began = time.clock_gettime(time.CLOCK_BOOTTIME)
            try:
                line = self._exchanged(path, request, until)
            except TimeoutError as error:
                _end_master(self.control, began)
                raise PlatformError(f"{who}: no answer from {self.settings.host} within {deadline:g} s; is the rack there well, and the network?") from error
            if line.endswith(b"\n"):
                return accepted(who, line)
            ended_early += 1
            if ended_early > REPEATED or time.monotonic() > until:
                raise PlatformError(
                    f"{who}: {self.settings.host} ended the connection without an answer, {ended_early} times: "
                    f"is the rack running there, and does its sshd allow Unix sockets to be forwarded (AllowStreamLocalForwarding)?"
                )
            time.sleep(PAUSE)

    def _exchanged(self, path: Path, request: Mapping[str, object], until: float) -> bytes:
        """Ask through the forwarded socket, which is opened where there is none; nothing, or half a line, where the connection was lost."""
        here = self.control.with_name(f"{self.control.name}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}")
        try:
            return exchange(here, request, until - time.monotonic())
        except (FileNotFoundError, ConnectionRefusedError):
            opened = self._forward(path, here)
        except TimeoutError:
            raise
        except OSError:
            return b""
        try:
            return exchange(here, request, until - time.monotonic()) if opened else b""
        except TimeoutError:
            raise
        except (FileNotFoundError, ConnectionRefusedError):
            # It believes that it listens there, and nobody does: somebody has removed the socket.
            _end_master(self.control, time.clock_gettime(time.CLOCK_BOOTTIME))
            return b""
        except OSError:
            return b""

    def _forward(self, path: Path, here: Path) -> bool:
        """Have the shared connection, which is opened where there is none, listen at `here` for the host's socket `path`; return whether it does."""
        what, began = f"reach the socket {path}", time.clock_gettime(time.CLOCK_BOOTTIME)
        if self._run(what, IS_SOCKET, _coded(path), fine=(0, ABSENT)).code == ABSENT:
            raise PlatformError(f"{self._who(what)}: there is no such socket; is the rack running there?")
        # No configuration is read: what it forwards besides would be asked for as well.
        argv = ["ssh", "-F", "none", "-o", f"ControlPath={self.control}", "-O", "forward", "-L", f"{here}:{path}", "--", self.settings.host]
        ended = _finished(argv, "", CONNECT_SECONDS, self._who(what))
        if ended is None:
            _end_master(self.control, began)
        return ended is not None and ended.code == 0

    @property
    def control(self) -> Path:
        """Socket of the shared connection."""
        return _control_path((self.settings.host, *self._options))

    def _lines(self, what: str, program: str, count: int) -> list[str]:
        lines = self._run(what, program).output.splitlines()
        if len(lines) != count:
            raise PlatformError(f"{self._who(what)}: expected {count} lines, got {_short(repr(lines))}")
        return lines

    def missing_programs(self) -> tuple[str, ...]:
        """Return which of the needed programs the host lacks."""
        return tuple(self._run("look for programs", PROGRAMS, *NEEDED).output.split())

    def _run(self, what: str, program: str, *arguments: str, data: str = "", fine: tuple[int, ...] = (0,)) -> _Ended:
        """Run one program over there, again when the connection is lost, until the deadline."""
        until = time.monotonic() + self.deadline
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Lost), stop=tenacity.stop_after_delay(self.deadline * 0.6), wait=tenacity.wait_fixed(PAUSE), reraise=True
        )
        return attempts(self._attempt, what, program, arguments, data, fine, until)

    def _attempt(self, what: str, program: str, arguments: tuple[str, ...], data: str, fine: tuple[int, ...], until: float) -> _Ended:
        """Run it once. A connection whose other side is silent ends by itself (`ALIVE_SECONDS`); whatever hangs until the deadline is replaced."""
        remote = " ".join(["exec", "sh", "-c", f"'{program}'", "frangible", *arguments])
        control, began = self.control, time.clock_gettime(time.CLOCK_BOOTTIME)
        argv = ["ssh", "-T", *self._options, "-o", f"ControlPath={control}", "--", self.settings.host, remote]
        ended = _finished(argv, data, max(0.5, until - time.monotonic()), self._who(what))
        if ended is None:
            _end_master(control, began)
            raise _Lost(f"{self._who(what)}: no answer in time; the host or the network is not answering: is it up, and reachable from here?")
        if ended.code == LOST:
            raise self._failed_connection(what, ended.said)
        before, mark, output = ended.output.partition(f"{MARK}\n")
        if ended.code not in fine or not mark:
            why = _short(ended.said) or f"exit code {ended.code}, {_short(before) or 'no output'}"
            raise PlatformError(f"{self._who(what)}: {why}; may user {self.settings.user or 'of ssh'} do that there?")
        return _Ended(ended.code, output, ended.said)

    def _failed_connection(self, what: str, said: str) -> PlatformError:
        who = self._who(what)
        if "Host key verification failed" in said or "REMOTE HOST IDENTIFICATION" in said:
            where = self.settings.known_hosts or "~/.ssh/known_hosts"
            return PlatformError(
                f"{who}: the host's key is not the one in {where}, or none is there: compare it with the host's owner before you change that file"
            )
        if "Permission denied" in said:
            return PlatformError(f"{who}: the host does not let us in ({_last(said)}): is the public key of `identity-file` in its authorized_keys?")
        jump = self.settings.jump
        through = f" Is {jump} up, is its key known, does it let us in and forward (AllowTcpForwarding)? What it says is not shown here." if jump else ""
        return _Lost(f"{who}: the connection failed: {_last(said)}; is the host up, and are `host` and `port` right?{through}")

    def _who(self, what: str) -> str:
        return f"transport ssh to {self.settings.host}: cannot {what}"


def _options(settings: SshSettings) -> tuple[str, ...]:
    """Fix what must not depend on anybody's configuration; the first value of an option counts (ssh_config(5))."""
    alike = _everywhere(settings)
    return (
        *alike,
        *(("-p", str(settings.port)) if settings.port else ()),
        *(("-l", settings.user) if settings.user else ()),
        *_set({"ControlMaster": "auto", "ControlPersist": PERSIST_SECONDS, "StreamLocalBindUnlink": "yes", "RemoteCommand": "none"}),
        *(_set({"ProxyCommand": _through(settings.jump, alike)}) if settings.jump else ()),
    )


def _everywhere(settings: SshSettings) -> tuple[str, ...]:
    """Return what counts for the host and for one on the way to it alike."""
    fixed: dict[str, str | int] = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "ConnectTimeout": CONNECT_SECONDS,
        "ServerAliveInterval": ALIVE_SECONDS,
        "ServerAliveCountMax": 2,
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "LogLevel": "INFO",
    }
    if settings.known_hosts:
        fixed |= {"UserKnownHostsFile": _quoted(settings.known_hosts), "GlobalKnownHostsFile": "/dev/null"}
    return (
        *(("-F", str(settings.config_file)) if settings.config_file else ()),
        *(_set({"IdentityFile": _quoted(settings.identity_file), "IdentitiesOnly": "yes"}) if settings.identity_file else ()),
        *_set(fixed),
    )


def _quoted(path: Path) -> str:
    """Write a path as ssh's configuration reads it: in quotes, and nothing put in place of % signs."""
    return '"{}"'.format(str(path).replace("%", "%%"))


def _set(options: Mapping[str, str | int]) -> tuple[str, ...]:
    return tuple(part for name, value in options.items() for part in ("-o", f"{name}={value}"))


def _through(jump: str, alike: tuple[str, ...]) -> str:
    """Return the command that reaches the host through another; ssh's own ProxyJump would not check that one's key as we do (ssh(1), -J)."""
    user, _, place = jump.rpartition("@")
    found = re.fullmatch(r"\[?([^\[\]]+?)\]?(?::([0-9]+))?", place)
    if found is None:
        raise PlatformError(f"jump host {jump!r}: expected `user@host:port`")
    words = ["ssh", "-T", *alike, *_set({"ControlMaster": "no", "ControlPath": "none"})]
    words += [*(("-l", user) if user else ()), *(("-p", found[2]) if found[2] else ())]
    quoted = [shlex.quote(word).replace("%", "%%") for word in words]  # ssh puts its own in place of % signs (ssh_config(5), TOKENS)
    return " ".join([*quoted, "-W", "'[%h]:%p'", "--", shlex.quote(found[1])])


def _control_path(options: tuple[str, ...]) -> Path:
    """Name the shared connection after everything that makes it: with other settings it would be another."""
    return _folder() / hashlib.sha256("\0".join(options).encode()).hexdigest()[:16]


def _folder() -> Path:
    """Return this user's own folder for shared connections, not deep: sun_path holds 108 bytes (unix(7)), and ssh and we append some 40."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere")
    folder = (runtime if runtime.is_dir() and len(os.fsencode(runtime)) < 40 else Path("/tmp")) / f"frangible-{os.geteuid()}"  # noqa: S108 - checked below
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise PlatformError(
            f"{folder}: cannot be made ({error.strerror}); ssh's shared connections need it: set XDG_RUNTIME_DIR to a folder of your own"
        ) from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o077 or not stat.S_ISDIR(found.st_mode):
        raise PlatformError(f"{folder}: expected a folder that only this user may enter, as ssh's shared connections need; remove it, or set XDG_RUNTIME_DIR")
    return folder


def _end_master(control: Path, before: float) -> None:
    """Kill the process of a shared connection that hangs, so that the next call opens a new one. One that began after `before` (boot time) is not it.

    It is not asked to end: what hangs would not answer, and it would remove the control socket that may be the next one's by then.
    """
    left = False
    for process in _masters(control):
        if process.start / os.sysconf("SC_CLK_TCK") < before:
            process.kill(wait=1.0)
        else:
            left = True
    if not left:
        with contextlib.suppress(OSError):
            control.unlink()


def _masters(control: Path) -> Iterator[ProcessIdentity]:
    """Yield the processes that call themselves as ssh does once it serves a control socket."""
    title = f"ssh: {control} [mux]".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if (entry / "cmdline").read_bytes().rstrip(b"\0 ") == title and entry.stat().st_uid == os.geteuid():
                    process = ProcessIdentity.of(int(entry.name))
                    if process is not None:
                        yield process


def _living(stat_line: str) -> tuple[int, int] | None:
    """Return process id and start time from a line of /proc/PID/stat (proc(5)), or None where it is dead."""
    pid, fields = int(stat_line.split()[0]), stat_line.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else (pid, int(fields[19]))


def _finished(argv: list[str], data: str, seconds: float, who: str) -> _Ended | None:
    """Run ssh in a session of its own, so that Ctrl-C does not cut a revert short; None when it took too long.

    Its stderr is a file: the shared connection's process keeps it open, and a pipe would never end.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as said, tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as given:
        given.write(data)
        given.seek(0)
        try:
            process = subprocess.Popen(argv, stdin=given, stdout=output, stderr=said, start_new_session=True)
        except OSError as error:
            raise PlatformError(f"{who}: the program `ssh` cannot be started ({error.strerror}); install OpenSSH's client") from error
        try:
            if not _ends(process.pid, seconds):
                return None
            code = process.wait()
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        said.seek(0)
        return _Ended(code, output.read(), said.read())


def _ends(pid: int, seconds: float) -> bool:
    """Wait for the end of a child at most so long; a pidfd tells it at once, where `Popen.wait` with a limit looks every 50 ms."""
    descriptor = os.pidfd_open(pid)
    try:
        looking = select.poll()
        looking.register(descriptor, select.POLLIN)
        return bool(looking.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _coded(value: Path | str) -> str:
    return base64.b64encode(str(value).encode()).decode()


def _size(text: str) -> str:
    return str(len(text.encode()))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return _short(lines[-1]) if lines else "ssh said nothing"
