"""Two lines to the Internet: shares, priorities, and what a failure and a return cost live connections."""

import collections
import contextlib
import selectors
import subprocess
import time

import pytest

from harness.lab import Addresses as A
from harness.lines import Flows, second_line
from harness.nat import SPARE_WAN, nat_config
from harness.traffic import iperf_server, process
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

PORT = 7400
SESSIONS = 200
QUIET = subprocess.DEVNULL


def config(wan, express, nat=""):
    """Both lines translate; `wan` and `express` are keys of theirs."""
    text = nat_config(wan=f"{wan}\n", text=nat)
    return text.replace('role = "express"', f'role = "wan"\nsnat = true\n{express}', 1)


@pytest.fixture(scope="module")
def lines(lab, gateway):
    """The gateway has a second default route, which the kernel likes less."""
    second = f"default via {A.POP_LINK[4]} dev express metric 100"
    gateway.ensure(config("priority = 1", "priority = 2"))
    with second_line(lab):
        lab.gw.ip(f"route add {second}")
        for router in (A.POP_LINK, A.WAN_ROUTER):
            assert lab.gw.ping(router[4], count=1) == 1
        yield
        lab.gw.ip(f"route del {second}", check=False)


def test_shares_priorities_and_ports_that_do_not_forward(lines, gw_changed, lab, wire):
    gw = gw_changed(config("priority = 5\nweight = 25", "priority = 5\nweight = 75"))
    flows = Flows(lab, wire)
    got = flows.lines(400)
    assert got["wan"] + got["express"] == 400
    # 25 % of 400 flows: 100, with a standard deviation of 8.7.
    assert 65 <= got["wan"] <= 135, got
    default = lambda: next(r for r in gw.ctl("routes")["routes"] if r["destination"] == "0.0.0.0/0")
    assert default()["metric"] == 5
    for keys, line in [
        (("priority = 9", "priority = 8"), "express"),
        (("priority = 7", "priority = 7\nfailed = true"), "wan"),
        (("priority = 7\nfailed = true", "priority = 9"), "express"),
        (("priority = 7\nfailed = true", "priority = 9\nfailed = true"), "wan"),
    ]:
        gw.reload(config(*keys))
        other = "wan" if line == "express" else "express"
        assert flows.lines(20) == {line: 20, other: 0}, keys
    # The kernel's best default route leads by the port that does not forward.
    mgmt = config("", "priority = 9").replace('role = "wan"\nsnat = true\n', 'role = "mgmt"\npriority = -1\n', 1)
    gw.reload(mgmt)
    within(3, "by the other one alone", lambda: flows.lines(20) == {"wan": 0, "express": 20})


class Sessions:
    """TCP connections from lan1 to the Internet, with both ends at hand."""

    def __init__(self, lab, peers):
        self.lab, self.peers = lab, peers
        self.listener = peers.listen(lab.inet, A.INET[4], PORT)
        self.listener.listen(SESSIONS)
        self.serial = 0

    def open(self, count, timeout=1.5):
        """(client, server) of each, and the addresses that the Internet sees."""
        made, seen = [], collections.Counter()
        for _ in range(count):
            client = self.peers.connect(self.lab.lan1, (A.INET[4], PORT), timeout=timeout)
            self.serial += 1
            client.send(self.serial.to_bytes(4, "big"))
            greeting = None
            while greeting != self.serial:
                # One that its client has given up may be in front.
                server, peer = self.peers.accept(self.listener, timeout=1.0)
                with contextlib.suppress(OSError):
                    greeting = int.from_bytes(server.recv(4), "big")
            made.append((client, server))
            seen[peer[0]] += 1
        return made, seen

    def begins_by(self, address):
        """Whether a new connection is seen with this address; it is closed."""
        with contextlib.suppress(OSError):
            # Sooner than TCP repeats a SYN that went by the dead line.
            made, seen = self.open(1, timeout=0.1)
            for sock in made[0]:
                sock.close()
            return seen[address] == 1
        return False

    @staticmethod
    def exchange(pairs, seconds=2.0):
        """A byte from each client and back: how many of each side are alive, reset, or silent, and when the last client knew."""
        ends = selectors.DefaultSelector()
        fate = {}
        for client, server in pairs:
            for sock, name in ((client, "client"), (server, "server")):
                sock.setblocking(False)
                ends.register(sock, selectors.EVENT_READ, (name, client))
                fate[sock] = "silent"
            with contextlib.suppress(OSError):
                client.send(b"x")
        begun = known = time.monotonic()
        end = begun + seconds
        while "silent" in fate.values() and time.monotonic() < end:
            for key, _ in ends.select(0.1):
                sock, (name, _client) = key.fileobj, key.data
                try:
                    data = sock.recv(16)
                    fate[sock] = "alive" if data else "closed"
                    if name == "server" and data:
                        sock.send(data)
                except ConnectionResetError:
                    fate[sock] = "reset"
                except BlockingIOError:
                    continue
                ends.unregister(sock)
                if name == "client":
                    known = time.monotonic()
        ends.close()
        clients = collections.Counter(fate[c] for c, _ in pairs)
        return clients, collections.Counter(fate[s] for _, s in pairs), known - begun


def restore_router(lab):
    """The addresses of IPv6 and all routes went with the link."""
    lab.wan.ip("link set gw up")
    lab.wan.ip(f"-6 addr replace {A.WAN_ROUTER[6]}/64 dev gw nodad")
    lab.wan.ip(f"route replace {SPARE_WAN} via {A.GW_WAN[4]}")
    for lan in ("2001:db8:1::/64", "2001:db8:2::/64"):
        lab.wan.ip(f"-6 route replace {lan} via {A.GW_WAN[6]}")


@pytest.mark.parametrize("policy", ["sticky", "move"])
def test_a_busy_line_goes_down_and_comes_back(lines, gw_changed, lab, hidden, peers, policy):
    """Without carrier every connection ends at once, and begins anew by the other line. When the line is back what has begun
    by the other one stays, or is ended at both ends; new ones come back at once."""
    gw = gw_changed(config("priority = 1", "priority = 2", f'\n[nat]\nwan_sessions = "{policy}"\n'))
    sessions = Sessions(lab, peers)
    drops = lambda: sum(n for (_, reason), n in gw.drops().items() if reason == "nat-wan-changed")
    load = ["-t", "60", "-b", "50M"]
    with iperf_server(lab.inet) as port, process(lab.lan1, ["iperf3", "-c", A.INET[4], "-p", port, *load], stdout=QUIET, stderr=QUIET):
        first, seen = sessions.open(SESSIONS)
        assert seen == {A.GW_WAN[4]: SESSIONS}
        assert sessions.exchange(first)[:2] == ({"alive": SESSIONS}, {"alive": SESSIONS})
        before = drops()
        down = time.monotonic()
        lab.wan.ip("link set gw down")
        try:
            within(3, "new connections begin by the other line", lambda: sessions.begins_by(A.GW_EXPRESS[4]))
            began = time.monotonic() - down
            clients, servers, told = sessions.exchange(first, 1.0)
            # The far ends hear nothing: their line is dead.
            assert clients == {"reset": SESSIONS} and servers == {"silent": SESSIONS}, (clients, servers)
            # And that of iperf3, two or three with its control connection.
            assert drops() - before >= SESSIONS
            second, seen = sessions.open(SESSIONS)
            assert seen == {A.GW_EXPRESS[4]: SESSIONS}
        finally:
            up = time.monotonic()
            restore_router(lab)
        within(3, "new connections come back", lambda: sessions.begins_by(A.GW_WAN[4]))
        back = time.monotonic() - up
        clients, servers, ended = sessions.exchange(second)
        left = "alive" if policy == "sticky" else "reset"
        assert (clients, servers) == ({left: SESSIONS}, {left: SESSIONS}), (clients, servers)
    print(f"{policy}: new connections by the other line after {began * 1000:.0f} ms, {SESSIONS} resets {told * 1000:.0f} ms after"
          f" their next packets; new ones back after {back * 1000:.0f} ms, {SESSIONS} by the other line {left}"
          f" within {ended * 1000:.0f} ms")
