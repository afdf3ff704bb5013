"""What a failover costs: keepalived on both gateways of a pair, flows through them, and the time without answers."""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import threading
import time
from typing import Any

from .pair import SERVER, SHARED, Member, Pair
from .routers import program
from .waiting import within

# One virtual router for all addresses, so that they move together; the lower address in it has the number 1.
CONF = """
global_defs {{
    vrrp_version 3
    vrrp_priority -20
    router_id {name}
    script_user root
}}
{check}
vrrp_instance pair {{
    state BACKUP
    interface lan
    virtual_router_id 1
    priority {priority}
    advert_int {interval}
    track_interface {{
        wan
    }}
{track}
    virtual_ipaddress {{
        {first} dev lan
    }}
    virtual_ipaddress_excluded {{
        {others}
    }}
{notify}
}}
"""
# With Ethernet addresses of their own: a virtual router of each family, which move together.
VIRTUAL_CONF = """
global_defs {{
    vrrp_version 3
    vrrp_priority -20
    router_id {name}
    script_user root
}}
{check}
vrrp_sync_group pair {{
    group {{
        four
        six
    }}
    track_interface {{
        wan
    }}
{track}
}}
vrrp_instance four {{
    state BACKUP
    interface lan
    use_vmac sag-vrrp4
    virtual_router_id 1
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        10.1.0.1/32
    }}
    virtual_ipaddress_excluded {{
        {others}
    }}
}}
vrrp_instance six {{
    state BACKUP
    interface lan
    use_vmac sag-vrrp6
    virtual_router_id 1
    priority {priority}
    advert_int {interval}
    virtual_ipaddress {{
        fe80::1/64
        fd01::1/64 noprefixroute
    }}
}}
"""
VIRTUAL_MAC = {4: "00:00:5e:00:01:01", 6: "00:00:5e:00:02:01"}
CHECK = """
vrrp_script ready {{
    script "{command}"
    interval 1
    timeout 1
    rise 1
    fall 30
}}
"""
# The address by which a gateway speaks VRRP.
OWN = {"a": "10.1.0.2/24", "b": "10.1.0.3/24"}
OWN6 = {"a": "fd01::2/64", "b": "fd01::3/64"}
PRIORITY = {"a": 254, "b": 253}
# Datagrams of the flow that measures the time without answers.
EVERY = 0.002


class Keepalived:
    """keepalived of one gateway. `check`: the command that says whether it may have the addresses."""

    def __init__(self, member: Member, interval: float, check: str = "", notify: str = "", virtual: bool = False) -> None:
        self.member, self.folder = member, member.run_dir
        self.folder.mkdir(parents=True, exist_ok=True)
        self.conf = self.folder / "keepalived.conf"
        first, *lan = SHARED["lan"]
        others = [f"{a} dev lan" for a in lan if not virtual] + [f"{a} dev wan" for a in SHARED["wan"]]
        self.conf.write_text(
            (VIRTUAL_CONF if virtual else CONF).format(
                name=member.name, priority=PRIORITY[member.name], interval=interval, first=first,
                check=CHECK.format(command=check) if check else "", track="    track_script {\n        ready\n    }" if check else "",
                others="\n        ".join(others), notify=notify,
            )
        )  # fmt: skip
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.member.ns.ip(f"addr replace {OWN[self.member.name]} dev lan")
        self.member.ns.ip(f"addr replace {OWN6[self.member.name]} dev lan nodad")
        command = [program("keepalived", "/usr/sbin/keepalived"), "-f", self.conf, "-n", "-l", "-D", "-P"]
        command += ["-p", self.folder / "keepalived.pid", "-r", self.folder / "vrrp.pid"]
        self.log = open(self.folder / "keepalived.log", "ab")
        self.process = self.member.ns.popen(command, stdout=self.log, stderr=self.log, start_new_session=True)

    def is_master(self) -> bool:
        devices = self.member.ns.out(["ip", "-4", "-o", "addr"])
        return f" {SHARED['wan'][0]} " in devices

    def end(self, how: int = signal.SIGTERM) -> None:
        if self.process is None:
            return
        if how == signal.SIGKILL:
            child = (self.folder / "vrrp.pid").read_text().strip()
            for pid in (self.process.pid, int(child)):
                os.kill(pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(10)
        self.process = None
        self.log.close()

    def said(self) -> str:
        return (self.folder / "keepalived.log").read_text()[-3000:]


def power_off(member: Member, keepalived: Keepalived) -> None:
    """As if the machine had lost its power: no process ends in good order, and nothing leaves any more."""
    for device in ("lan", "wan", "ha"):
        member.ns.ip(f"link set {device} down")
    keepalived.end(signal.SIGKILL)
    member.kill()


def power_on(member: Member) -> None:
    for device in ("lan", "wan", "ha"):
        member.ns.ip(f"addr flush dev {device}")
        member.ns.ip(f"link set {device} up")
    own = 1 if member.name == "a" else 2
    member.ns.ip(f"addr add 10.255.0.{own}/24 dev ha")


class Connections:
    """TCP connections from the client to the server through the pair, each with a short message about once a second that
    is answered. The thread notes when each was answered last, and which were reset."""

    def __init__(self, pair: Pair, count: int, family: int = 4, port: int = 7000) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        self.selector = selectors.DefaultSelector()
        self.sockets: list[socket.socket] = []
        self.seen_as: set[str] = set()
        self.answered = [0] * count
        self.sent = [0] * count
        self.lost: dict[int, str] = {}
        listener = pair.server.socket(kind, socket.SOCK_STREAM)
        listener.bind((SERVER[family], port))
        listener.listen(128)
        self.clients = []
        self.number_of: dict[socket.socket, int] = {}
        for number in range(count):
            client = pair.client.socket(kind, socket.SOCK_STREAM)
            client.settimeout(10)
            client.connect((SERVER[family], port))
            server, peer = listener.accept()
            self.seen_as.add(peer[0])
            self.number_of[server] = number
            for one, who in ((client, number), (server, -1)):
                one.setblocking(False)
                self.selector.register(one, selectors.EVENT_READ, who)
                self.sockets.append(one)
            self.clients.append(client)
        listener.close()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        count, due, number = len(self.clients), time.monotonic(), 0
        while not self.over.is_set():
            for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                self._read(key.fileobj, key.data)
            while due <= time.monotonic():
                # One that still waits for an answer says nothing more: its TCP sends again.
                if number not in self.lost and self.sent[number] == self.answered[number]:
                    self._send(self.clients[number], number)
                number = (number + 1) % count
                due += 1.0 / count

    def _send(self, sock: socket.socket, number: int) -> None:
        try:
            sock.send(b"12345678")
            self.sent[number] += 1
        except OSError as error:
            self.lost[number] = str(error)

    def _read(self, sock: Any, number: int) -> None:
        try:
            data = sock.recv(64)
            if not data:
                raise ConnectionError("closed")
            if number < 0:
                sock.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            self.selector.unregister(sock)
            self.lost[number if number >= 0 else self.number_of[sock]] = str(error)
            return
        if number >= 0:
            self.answered[number] += 1

    def answer_again(self, seconds: float) -> float:
        """Until each that was not reset has been answered once more; returns how long it took."""
        before = list(self.answered)
        waits = lambda: [n for n, count in enumerate(before) if self.answered[n] == count and n not in self.lost]
        return within(seconds, "every connection goes on", lambda: not waits(), lambda: f"{len(waits())} wait; lost: {self.lost}")

    def close(self) -> None:
        self.over.set()
        self.thread.join()
        for one in self.sockets:
            one.close()


ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7001))
print("ready", flush=True)
while True:
    peer = s.recvfrom(64)[1]
    try:
        s.sendto(f"{peer[0]} {peer[1]}".encode(), peer)
    except OSError:
        pass  # the gateway's address does not answer for a moment
"""
PROBE = """
import json, select, socket, sys, time
to, every = (sys.argv[1], 7001), float(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect(to)
s.setblocking(False)
due, last, gap, seen = time.monotonic(), None, 0.0, set()
while True:
    ready = select.select([s, sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]
    now = time.monotonic()
    if s in ready:
        try:
            seen.add(s.recv(64).decode())
            gap, last = max(gap, now - (last or now)), now
        except OSError:
            pass
    if sys.stdin in ready:
        if not sys.stdin.readline():
            break
        print(json.dumps([gap, sorted(seen)]), flush=True)
        gap = 0.0
    while due <= now:
        try:
            s.send(b"?")
        except OSError:
            pass
        due += every
"""


class Probe:
    """A flow of datagrams that are answered, in processes of its own: the longest time without an answer."""

    def __init__(self, pair: Pair, family: int = 4) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        python = ["/usr/bin/python3", "-c"]
        self.echo = pair.server.popen(["nice", "-n", "-20", *python, ECHO, SERVER[family]], **pipes)
        assert self.echo.stdout and self.echo.stdout.readline() == "ready\n"
        self.probe = pair.client.popen(["nice", "-n", "-20", *python, PROBE, SERVER[family], EVERY], **pipes)

    def take(self) -> tuple[float, list[str]]:
        """The longest time without an answer since the last call, in seconds, and the endpoints that the server has seen."""
        assert self.probe.stdin and self.probe.stdout
        self.probe.stdin.write("\n")
        self.probe.stdin.flush()
        gap, seen = json.loads(self.probe.stdout.readline())
        return gap, seen

    def close(self) -> None:
        for process in (self.probe, self.echo):
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
