"""Cut this node off: `python3 -m frangible.helper.cut --lease L --seconds 60 --what kubelet`, or `--what network --addresses IP,IP --api HOST:PORT`.

`kubelet` stops the kubelet's process by a signal: the node goes on, and nobody hears of it. `network` drops all traffic of the links that have the
node's addresses, but for this pod's own connection to the API server, through which it hears that it shall end; the kernel itself forgets the links
at the deadline, so the cut ends then even if nothing of this pod is left. The pod needs `hostPID` and `hostNetwork`, must be privileged, and the node
needs `nft` for `network`.
"""

import argparse
import fcntl
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from frangible.helper.api import PORTS
from frangible.helper.holding import hold
from frangible.helper.notes import Note, Process, all_notes, on_node, processes

__all__ = ["Cut", "Kubelet", "main", "ruleset"]

SIOCGIFADDR = 0x8915
"""From <linux/sockios.h>."""
KUBELETS = ("kubelet", "k3s-agent", "k3s-server", "kubelite")
"""Names of the process that is the kubelet, or has it in it."""
TABLE = "frangible"


class Kubelet:
    """SIGSTOP the kubelet."""

    def __init__(self, lease: str) -> None:
        """Nothing is done yet."""
        self._note = Note(lease)

    def begin(self) -> None:
        """Stop it; raise ValueError where there is none, or it is stopped already."""
        found = self._found()
        if len(found) != 1:
            raise ValueError(f"expected one process called {' or '.join(KUBELETS)} on this node, found {len(found)}")
        if found[0].state == "T":
            raise ValueError(f"the kubelet (pid {found[0].pid}) is stopped already")
        self._note.stopped = {found[0].pid: found[0].start}
        self._note.write()
        found[0].signal(signal.SIGSTOP)

    def look(self) -> dict[str, object]:
        """Tell whether the very kubelet that was stopped still is; one that was started anew is left alone."""
        return {"cut": any(self._note.stopped.get(one.pid) == one.start and one.state == "T" for one in self._found())}

    def undo(self) -> list[str]:
        """Let it go on."""
        return [left for note in all_notes(self._note.lease) for left in note.undo()]

    @staticmethod
    def _found() -> list[Process]:
        return [one for one in processes() if _name(one) in KUBELETS]


class Cut:
    """Drop what comes and goes over the node's links."""

    def __init__(self, lease: str, seconds: float, addresses: Sequence[str], servers: Sequence[str]) -> None:
        """Take the node's addresses and the API server's own."""
        self._note = Note(lease, table=TABLE)
        self._seconds, self._addresses, self._servers = seconds, addresses, servers

    def begin(self) -> None:
        """Drop it; raise where the node has no such link, or no nft."""
        links = links_of(self._addresses)
        if not links:
            raise ValueError(f"no link of this node has one of its addresses {', '.join(self._addresses)}")
        self._note.write()
        done = on_node("nft", "-f", "-", text=ruleset(TABLE, links, self._seconds, self._servers))
        if done.returncode != 0:
            raise ValueError(f"nft: {done.stderr.strip()}")

    def look(self) -> dict[str, object]:
        """Tell whether the kernel still has a link to drop on."""
        return {"cut": "expires" in on_node("nft", "list", "set", "inet", TABLE, "links").stdout}

    def undo(self) -> list[str]:
        """Remove the table."""
        return [left for note in all_notes(self._note.lease) for left in note.undo()]


def ruleset(table: str, links: Sequence[str], seconds: float, servers: Sequence[str]) -> str:
    """Return the nft rules: drop on these links for so many seconds, all but a helper's own connection to these servers (`host:port`)."""
    elements = ", ".join(f'"{link}" timeout {max(1, round(seconds))}s' for link in links)
    ports = f"{PORTS.start}-{PORTS.stop - 1}"
    out, back = [], []
    for server in servers:
        host, _, port = server.rpartition(":")
        family = "ip6" if ":" in host.strip("[]") else "ip"
        out.append(f"    {family} daddr {host.strip('[]')} tcp sport {ports} tcp dport {port} accept\n")
        back.append(f"    {family} saddr {host.strip('[]')} tcp sport {port} tcp dport {ports} accept\n")
    return (
        f"table inet {table} {{\n"
        f"  set links {{ type ifname; flags timeout; elements = {{ {elements} }}; }}\n"
        f"  chain incoming {{\n    type filter hook prerouting priority -450; policy accept;\n{''.join(back)}    iifname @links drop\n  }}\n"
        f"  chain outgoing {{\n    type filter hook postrouting priority 450; policy accept;\n{''.join(out)}    oifname @links drop\n  }}\n"
        "}\n"
    )


def links_of(addresses: Sequence[str]) -> list[str]:
    """Return the links of this network namespace that have one of these addresses."""
    found = {name for name, address in _ipv4().items() if address in addresses}
    wanted = {socket.inet_pton(socket.AF_INET6, address) for address in addresses if ":" in address}
    file = Path("/proc/net/if_inet6")
    for line in file.read_text().splitlines() if file.exists() else ():
        address, *_, name = line.split()
        if bytes.fromhex(address) in wanted:
            found.add(name)
    return sorted(found)


def _ipv4() -> dict[str, str]:
    """Return the links and the first IPv4 address of each (netdevice(7))."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return found


def _name(process: Process) -> str:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().strip()
    except OSError:
        return ""


def main(arguments: Sequence[str]) -> int:
    """Cut until the deadline, SIGTERM or the pod's deletion."""
    parser = argparse.ArgumentParser(prog="cut", description="Cut this node off for a while.")
    parser.add_argument("--lease", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--what", choices=("kubelet", "network"), required=True)
    parser.add_argument("--addresses", default="", help="the node's own, with commas")
    parser.add_argument("--api", default="", help="the API server's own addresses, HOST:PORT, with commas")
    asked = parser.parse_args(arguments)
    servers = [one for one in asked.api.split(",") if one]
    if asked.what == "kubelet":
        return hold(Kubelet(asked.lease), asked.seconds, servers)
    return hold(Cut(asked.lease, asked.seconds, [one for one in asked.addresses.split(",") if one], servers), asked.seconds, servers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
