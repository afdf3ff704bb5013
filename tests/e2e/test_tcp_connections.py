"""Two kernels' TCP through the gateway: hosts that lose their state, use a port again, close by halves, open at once.

What happens is what happens with plain forwarding: the tests that need no rules pass with `--forwarder kernel` too.
"""

import contextlib
import errno
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.config import acl_table, lab_config
from harness.lab import Addresses as A
from harness.nat import nat_config, receive
from harness.port_counters import restarted
from harness.wire import IP, TCP, Ether, IPv6

TCP_REPAIR = 19
# Nobody outside begins a connection.
CLOSED = acl_table(
    "acl-in",
    [
        {"id": f"in-{n}", "direction": "in", "ip_protocol": "tcp", "dest_cidr": cidr}
        for n, cidr in ((4, "0.0.0.0/0"), (6, "::/0"))
    ],
)
SETUPS = {
    "fast-path": lambda: lab_config() + CLOSED,
    "workers": lambda: lab_config(fast_path=False) + CLOSED,
    "nat": lambda: nat_config(text=CLOSED),
    "nat-workers": lambda: nat_config(text=CLOSED, fast_path=False),
}


class Ends:
    """A client in the LAN and a server on the Internet, each with a port of its own."""

    # No test uses the ports of another one: what is left there in TIME-WAIT would be in its way.
    used = 0

    def __init__(self, lab, family, client=None):
        self.lab, self.family = lab, family
        self.inet = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
        Ends.used += 1
        self.client = (A.LAN1[family], 20000 + Ends.used)
        self.server = (A.INET[family], 30000 + Ends.used)
        # Where the client is, seen from outside.
        self.outside = (client or self.client[0], self.client[1])
        self.made = []

    def socket(self, ns, own, timeout=6.0):
        sock = ns.socket(self.inet, socket.SOCK_STREAM)
        self.made.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(timeout)
        sock.bind(own)
        return sock

    def listen(self):
        listener = self.socket(self.lab.inet, self.server)
        listener.listen(8)
        return listener

    def connect(self, timeout=6.0):
        end = time.monotonic() + timeout
        while True:
            sock = self.socket(self.lab.lan1, self.client, timeout)
            try:
                sock.connect(self.server)
                return sock
            except OSError as why:
                # The last segments of the connection before are still under way.
                if why.errno != errno.EADDRNOTAVAIL or time.monotonic() > end:
                    raise
            sock.close()
            time.sleep(0.01)

    def accept(self, listener):
        sock, peer = listener.accept()
        self.made.append(sock)
        assert peer[:2] == self.outside
        sock.settimeout(6.0)
        return sock

    def open(self, listener):
        client = self.connect()
        server = self.accept(listener)
        talk(client, server)
        return client, server

    def close(self):
        for sock in self.made:
            sock.close()


def talk(one, other):
    for here, there in ((one, other), (other, one), (one, other)):
        here.sendall(b"x" * 3000)
        assert receive(there, 3000) == b"x" * 3000


def forget(sock):
    """The host loses the connection without a word, as at a power cut."""
    sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    sock.close()


def gone(sock):
    """The host has heard that the connection is over."""
    with pytest.raises(ConnectionResetError):
        sock.recv(1)


def refused(connect):
    """Refused at once, and not by silence."""
    start = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        connect()
    assert time.monotonic() - start < 3


# --- what hosts do; each in both families ------------------------------------------------------------


def the_client_reboots(ends):
    listener = ends.listen()
    for _ in range(2):
        client, server = ends.open(listener)
        forget(client)
        # SYN, challenge ACK, RST, SYN: from the same port.
        again = ends.open(listener)
        talk(*again)
        gone(server)
        again[1].close()
        assert again[0].recv(1) == b""
        again[0].close()


def the_client_reboots_after_the_servers_fin(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    forget(client)
    talk(*ends.open(listener))
    gone(server)


def the_server_reboots(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    forget(server)
    client.sendall(b"is anybody there?")
    gone(client)
    client.close()
    talk(*ends.open(listener))


def both_reboot(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    forget(client)
    forget(server)
    talk(*ends.open(listener))


def the_port_again_in_time_wait(ends):
    listener = ends.listen()
    for _ in range(4):
        client, server = ends.open(listener)
        # The server closes first: TIME-WAIT is its.
        server.close()
        assert client.recv(1) == b""
        client.close()


def refused_after_it_was_accepted(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    server.close()
    assert client.recv(1) == b""
    client.close()
    listener.close()
    refused(ends.connect)
    refused(ends.connect)
    talk(*ends.open(ends.listen()))


def refused_when_both_have_rebooted(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    forget(client)
    forget(server)
    listener.close()
    refused(ends.connect)
    talk(*ends.open(ends.listen()))


def reset_and_again(ends):
    listener = ends.listen()
    for one in (0, 1, 0):
        pair = ends.open(listener)
        pair[one].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        pair[one].close()
        gone(pair[1 - one])
        pair[1 - one].close()


def half_closed(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    for _ in range(20):
        server.sendall(b"y" * 5000)
        assert receive(client, 5000) == b"y" * 5000
    server.close()
    assert client.recv(1) == b""


def both_open_at_once(ends):
    # The client's SYN finds nobody; before it is repeated, the server's comes.
    table = f"inet drop{ends.server[1]}"
    chain = f"type filter hook prerouting priority raw; tcp dport {ends.server[1]} drop"
    rule = f"table {table} {{\n chain in {{\n {chain}\n }}\n}}\n"
    ends.lab.inet.run(["nft", "-f", "-"], input=rule)
    client = ends.socket(ends.lab.lan1, ends.client)
    client.setblocking(False)
    assert client.connect_ex(ends.server) == errno.EINPROGRESS
    time.sleep(0.1)
    ends.lab.inet.run(["nft", "delete", "table", *table.split()])
    server = ends.socket(ends.lab.inet, ends.server)
    server.connect(ends.outside)
    client.settimeout(6.0)
    talk(client, server)


def a_stray_syn(ends):
    """A SYN of somebody else into a connection: a challenge ACK, and the connection goes on."""
    listener = ends.listen()
    client, server = ends.open(listener)
    gw, lan1 = ends.lab.gw, ends.lab.lan1
    head = Ether(src=lan1.mac("eth0"), dst=gw.mac("lan-a"))
    network = {4: IP, 6: IPv6}[ends.family](src=ends.client[0], dst=ends.server[0])
    frame = bytes(head / network / TCP(sport=ends.client[1], dport=ends.server[1], flags="S", seq=1))
    with contextlib.closing(lan1.socket(socket.AF_PACKET, socket.SOCK_RAW)) as raw:
        raw.bind(("eth0", 0))
        for _ in range(3):
            raw.send(frame)
    talk(client, server)
    client.close()
    assert server.recv(1) == b""
    server.sendall(b"still there")


STORIES = (
    the_client_reboots,
    the_client_reboots_after_the_servers_fin,
    the_server_reboots,
    both_reboot,
    the_port_again_in_time_wait,
    refused_after_it_was_accepted,
    refused_when_both_have_rebooted,
    reset_and_again,
    half_closed,
    both_open_at_once,
    a_stray_syn,
)


def ends_of(lab, family, natted):
    return Ends(lab, family, A.GW_WAN[4] if natted and family == 4 else None)


def run_all(lab, stories, natted):
    """All stories in both families, at once: most of their time they wait for repetitions."""

    def one(story, family, ends):
        with contextlib.closing(ends):
            try:
                story(ends)
            except (Exception, pytest.fail.Exception) as why:
                return f"{story.__name__}, IPv{family}: {type(why).__name__}: {why}"
        return None

    jobs = [(story, family) for story in stories for family in (4, 6)]
    ends = [ends_of(lab, family, natted) for _, family in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        failures = [why for why in pool.map(one, *zip(*jobs), ends) if why]
    assert not failures, "\n  ".join(["", *failures])


@pytest.mark.parametrize("setup", SETUPS)
def test_as_with_plain_forwarding(gw_with, gw_changed, forwarder, lab, setup):
    if forwarder == "kernel":
        if setup != "fast-path":
            pytest.skip("the kernel forwards in one way")
        gw_with(lab_config())
    else:
        gw_changed(SETUPS[setup]())
    run_all(lab, STORIES, natted="nat" in setup)


# --- the other side begins ---------------------------------------------------------------------------


def outside_begins(ends):
    """The server connects from its port to the client's, which listens. Nothing may come of it."""
    listener = ends.socket(ends.lab.lan1, ends.client)
    listener.listen(4)
    server = ends.socket(ends.lab.inet, ends.server, timeout=1.3)
    with pytest.raises(TimeoutError):
        server.connect(ends.outside)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def after_a_reset(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    gone(client)
    client.close()
    listener.close()
    outside_begins(ends)


def after_both_fins(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    client.close()
    assert server.recv(1) == b""
    # The client's TIME-WAIT would answer for its listener.
    forget(server)
    listener.close()
    outside_begins(ends)


def after_a_fin(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    server.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    forget(server)
    forget(client)
    listener.close()
    outside_begins(ends)


def after_a_refusal(ends):
    refused(ends.connect)
    for sock in ends.made:
        sock.close()
    outside_begins(ends)


def in_a_live_connection(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    forget(server)
    forget(client)
    listener.close()
    outside_begins(ends)


@pytest.mark.sag
@pytest.mark.parametrize("setup", SETUPS)
def test_what_the_other_side_begins_is_judged_anew(gw_changed, lab, setup):
    gw_changed(SETUPS[setup]())
    stories = (after_a_reset, after_both_fins, after_a_fin, after_a_refusal, in_a_live_connection)
    run_all(lab, stories, natted="nat" in setup)


# --- a restart between ------------------------------------------------------------------------------


def goes_on(ends):
    client, server = ends.open(ends.listen())
    yield
    talk(client, server)
    client.close()
    assert server.recv(1) == b""


def is_reset(ends):
    client, server = ends.open(ends.listen())
    yield
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    gone(client)


def the_client_has_rebooted(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    yield
    forget(client)
    talk(*ends.open(listener))
    gone(server)


def both_have_rebooted(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    yield
    forget(client)
    forget(server)
    listener.close()
    refused(ends.connect)
    talk(*ends.open(ends.listen()))


def the_other_side_begins(ends):
    listener = ends.listen()
    client, server = ends.open(listener)
    yield
    forget(client)
    forget(server)
    listener.close()
    outside_begins(ends)


@pytest.mark.sag
def test_a_restarted_gateway_knows_no_numbers(gw_changed, accounting, lab):
    config = SETUPS["nat"]()
    gw = gw_changed(config)
    stories = (goes_on, is_reset, the_client_has_rebooted, both_have_rebooted, the_other_side_begins)
    begun = [(story, family, ends_of(lab, family, True)) for story in stories for family in (4, 6)]
    halves = [story(ends) for story, _, ends in begun]
    for half in halves:
        next(half)
    gw.kill()
    restarted(gw, accounting, config, quiet=False)

    def rest(story, family, half):
        try:
            next(half, None)
        except (Exception, pytest.fail.Exception) as why:
            return f"{story.__name__}, IPv{family}: {type(why).__name__}: {why}"
        return None

    with ThreadPoolExecutor(len(halves)) as pool:
        failures = [why for why in pool.map(lambda one, half: rest(*one[:2], half), begun, halves) if why]
    for _, _, ends in begun:
        ends.close()
    accounting.open()
    assert not failures, "\n  ".join(["", *failures])
