"""Ports outside that hosts ask for: PCP and NAT-PMP with clients of Debian, and by hand."""

import re
import shutil
import signal
import socket
import struct
import time

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, seen_as, silent, talk
from harness.waiting import TIMEOUT, within

pytestmark = pytest.mark.sag

WAN, INET, LAN1, LAN2, GATEWAY = A.GW_WAN[4], A.INET[4], A.LAN1[4], A.LAN2[4], A.GW_LAN_A[4]
ROUTER = A.WAN_ROUTER[4]
HIGHER = "198.51.100.3"
NONCE = b"twelve bytes"
ASKING = nat_config(text="[port_mapping]\nhost_mappings = 8\n").replace('role = "lan"\n', 'role = "lan"\nport_mapping = true\n', 1)


def mapped(address):
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def request(opcode, body=b"", lifetime=3600, client=LAN1):
    return struct.pack("!BBHI", 2, opcode, 0, lifetime) + mapped(client) + body


def port_body(protocol, port, wanted=0, address="0.0.0.0", nonce=NONCE):
    return nonce + struct.pack("!B3xHH", protocol, port, wanted) + mapped(address)


def option(code, data=b""):
    return struct.pack("!BBH", code, 0, len(data)) + data


def filter_of(prefix, length, port=0):
    return option(3, struct.pack("!BBH", 0, 96 + length, port) + mapped(prefix))


class Client:
    """A host that asks."""

    def __init__(self, peers, ns, gateway=GATEWAY):
        self.sock = peers.udp(ns)
        self.sock.connect((gateway, 5351))

    def ask(self, message):
        until = time.monotonic() + TIMEOUT
        while True:
            try:
                self.sock.send(message)
                return self.sock.recv(2000)
            except ConnectionRefusedError:
                # The socket is opened by the next round of housekeeping.
                assert time.monotonic() < until
                time.sleep(0.05)

    def map(self, *args, lifetime=3600, options=b"", **keys):
        """(result, lifetime, external port, external address)."""
        answer = self.ask(request(1, port_body(*args, **keys) + options, lifetime))
        assert answer[:2] == b"\x02\x81" and len(answer) % 4 == 0
        (port,) = struct.unpack_from("!H", answer, 42)
        return answer[3], struct.unpack_from("!I", answer, 4)[0], port, socket.inet_ntoa(answer[56:60])


@pytest.fixture
def gw(gw_changed, hidden):
    return gw_changed(ASKING)


@pytest.fixture
def client(gw, lab, peers):
    client = Client(peers, lab.lan1)
    yield client
    for protocol in (6, 17):
        client.ask(request(1, port_body(protocol, 0), 0))


def mappings(gw):
    return gw.ctl("nat", "mappings")["mappings"]


def knock(peers, lab, to, inside, want=True, port=0):
    """Whether a datagram from the Internet reaches a socket inside."""
    sock = peers.udp(lab.inet, INET, port)
    sock.sendto(b"knock", to)
    if not want:
        return silent(inside)
    data, peer = inside.recvfrom(100)
    inside.sendto(b"who?", peer)
    return data == b"knock" and peer == sock.getsockname() and sock.recvfrom(100) == (b"who?", to)


def test_a_mapped_port_is_reached(client, gw, lab, peers):
    """UDP and TCP, first by workers, then by XDP, whatever the filter; the host's own sessions leave by the same port."""
    server, listener = peers.udp(lab.lan1, LAN1, 4100), peers.listen(lab.lan1, LAN1, 4101)
    assert silent_to(peers, lab, 7100, server)
    assert client.map(17, 4100, 7100) == (0, 3600, 7100, WAN)
    assert client.map(6, 4101, 7101, lifetime=10) == (0, 120, 7101, WAN)
    for _ in range(3):
        assert knock(peers, lab, (WAN, 7100), server)
    caller = peers.connect(lab.inet, (WAN, 7101), source=(INET, 0))
    accepted, peer = peers.accept(listener)
    assert peer == caller.getsockname()
    talk(caller, accepted, 100_000)
    assert seen_as(server, peers.udp(lab.inet, INET, 5500), (INET, 5500)) == (WAN, 7100)
    rows = {(m["protocol"], m["outside_port"]): m for m in mappings(gw)}
    assert rows[("tcp", 7101)]["lifetime"] <= 120 and rows[("udp", 7100)]["inside"] == LAN1
    bindings = gw.ctl("nat", "bindings", "--outside-port", "7101")["bindings"]
    assert [b["sessions"] for b in bindings] == [1], "to ask for a port is no session"
    # Given back, it is closed; the connection goes on.
    assert client.map(17, 4100, 7100, lifetime=0)[:2] == client.map(6, 4101, 7101, lifetime=0)[:2] == (0, 0)
    assert mappings(gw) == []
    talk(caller, accepted, 100_000)
    newcomer = peers.udp(lab.wan, "0.0.0.0")
    newcomer.sendto(b"late", (WAN, 7100))
    assert silent(server)


def silent_to(peers, lab, port, inside):
    peers.udp(lab.inet, INET).sendto(b"x", (WAN, port))
    return silent(inside)


def test_filters_and_peers(client, lab, peers):
    server = peers.udp(lab.lan1, LAN1, 4110)
    only = filter_of(INET, 32, 5511)
    assert client.map(17, 4110, 7110, options=only)[0] == 0
    assert knock(peers, lab, (WAN, 7110), server, port=5511)
    assert knock(peers, lab, (WAN, 7110), server, want=False, port=5512)
    # Nobody else's from now on, then whoever comes.
    assert client.map(17, 4110, 7110, options=filter_of("0.0.0.0", -96) + filter_of("100.64.0.0", 10))[0] == 0
    assert knock(peers, lab, (WAN, 7110), server, want=False, port=5513)
    assert client.map(17, 4110, 7110, options=filter_of("0.0.0.0", -96))[0] == 0
    assert knock(peers, lab, (WAN, 7110), server, port=5514)
    # A port for one remote endpoint, to which nothing has been sent.
    peer = peers.udp(lab.lan1, LAN1, 4111)
    body = port_body(17, 4111) + struct.pack("!H2x", 5515) + mapped(INET)
    answer = client.ask(request(2, body))
    assert (answer[1], answer[3]) == (0x82, 0) and answer[60:] == body[36:]
    (port,) = struct.unpack_from("!H", answer, 42)
    assert knock(peers, lab, (WAN, port), peer, port=5515)
    assert knock(peers, lab, (WAN, port), peer, want=False, port=5516)
    assert client.ask(request(2, body, 0))[3] == 0


def test_refusals(client, gw, lab, peers):
    assert client.map(17, 4120, 7120)[0] == 0
    assert client.map(17, 4120, 7120, nonce=b"other bytes!")[0] == 2
    other = Client(peers, lab.lan1)
    prefer = option(2)
    assert other.map(17, 4121, 7120, options=prefer)[0] == 11
    assert other.map(17, 4121, 22, options=prefer)[0] == 11, "not within external_ports"
    assert other.map(17, 4121, 7121, address="203.0.113.99", options=prefer)[0] == 11
    assert other.map(132, 4121)[0] == 9
    assert other.ask(request(1, port_body(17, 1), client=LAN2))[3] == 12
    assert other.ask(request(1, port_body(17, 1) + option(1, mapped(LAN2))))[3] == 5
    assert other.ask(b"\x01" + request(0)[1:])[:4] == b"\x02\x80\x00\x01"
    assert other.ask(request(1, port_body(17, 1))[:-4])[3] == 3
    assert other.ask(request(77))[3] == 4
    got = [other.map(17, 4130 + n)[0] for n in range(8)]
    assert got == [0] * 7 + [10], "a host has eight"
    for noise in (b"", b"\x02", b"\x02\x81" + bytes(22), b"\x00\x80", bytes(1400), b"\x02\x01" * 700):
        other.sock.send(noise)
    assert Client(peers, lab.lan1).ask(request(0))[:4] == b"\x02\x80\x00\x00"
    # Not from elsewhere: neither behind another port of the LAN, nor from the Internet, nor at another address.
    for ns, gateway in ((lab.lan2, A.GW_LAN_B[4]), (lab.lan2, GATEWAY), (lab.inet, WAN), (lab.lan1, WAN)):
        sock = peers.udp(ns)
        sock.sendto(request(0, client=sock.getsockname()[0]), (gateway, 5351))
        assert silent(sock, 0.2), (ns, gateway)
    refused = gw.ctl("nat", "mappings")["refused"]
    assert refused >= 10
    metric = f'sag_port_mapping_requests_total{{outcome="refused"}} {refused}'
    metrics = lambda: lab.gw.out(["curl", "-s", "http://127.0.0.1:9477/metrics"])
    within(3, "the metric has them", lambda: metric in metrics(), metrics)


def test_natpmpc(client, lab):
    """Debian's client of libnatpmp."""
    if shutil.which("natpmpc") is None:
        pytest.skip("natpmpc is not installed (apt-get install natpmpc)")
    run = lambda *args: lab.lan1.run(["natpmpc", "-g", GATEWAY, *args]).stdout
    assert f"Public IP address : {WAN}" in run()
    out = run("-a", "7140", "4140", "udp", "300")
    assert re.search(r"Mapped public port 7140 protocol UDP to local port 4140 life?time 300", out), out
    out = run("-a", "7141", "4141", "tcp", "60")
    assert re.search(r"Mapped public port 7141 protocol TCP to local port 4141 life?time 120", out), out
    assert re.search(r"to local port 4140 life?time 0", run("-a", "0", "4140", "udp", "0"))


def test_acl_has_its_say(gw, lab, peers):
    """By the address inside, as with port forwards."""
    from harness.nat import table

    rule = table("acl", id="acl-1") + table(
        "acl.rule", id="r1", direction="in", type="WAN", policy="drop", ip_protocol="udp", source_cidr="0.0.0.0/0",
        dest_cidr=f"{LAN1}/32", dest_port_range="4150/4150",
    )
    gw.reload(ASKING + rule)
    client = Client(peers, lab.lan1)
    server, other = peers.udp(lab.lan1, LAN1, 4150), peers.udp(lab.lan1, LAN1, 4151)
    assert client.map(17, 4150, 7150)[0] == client.map(17, 4151, 7151)[0] == 0
    assert knock(peers, lab, (WAN, 7150), server, want=False)
    assert knock(peers, lab, (WAN, 7151), other)
    # Who may not ask any more loses what he has.
    gw.reload(ASKING.replace("port_mapping = true\n", ""))
    until = time.monotonic() + TIMEOUT
    while mappings(gw):
        assert time.monotonic() < until
        time.sleep(0.02)
    assert knock(peers, lab, (WAN, 7151), other, want=False, port=5551)
    gw.reload(ASKING)


def listen_for_announcements(peers, ns):
    sock = peers.udp(ns, "0.0.0.0", 5350)
    member = socket.inet_aton("224.0.0.1") + socket.inet_aton(LAN1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return sock


def announced(sock, kind, fits):
    """The first announcement of a protocol that fits."""
    until = time.monotonic() + TIMEOUT
    while time.monotonic() < until:
        data = sock.recv(100)
        if data[0] == kind and fits(data):
            return data
    raise AssertionError("no announcement")


def test_restart_and_another_address(gw, lab, peers, accounting):
    """Both begin the epoch anew and are announced; what hosts ask for again they get again."""
    ear = listen_for_announcements(peers, lab.lan1)
    client = Client(peers, lab.lan1)
    server = peers.udp(lab.lan1, LAN1, 4160)
    assert client.map(17, 4160, 7160)[0] == 0
    gw.kill(signal.SIGKILL)
    gw.start(ASKING)
    accounting.open()
    epoch = struct.unpack_from("!I", announced(ear, 2, lambda d: len(d) == 24), 8)[0]
    assert epoch < 5
    assert mappings(gw) == [] and client.map(17, 4160, 7160) == (0, 3600, 7160, WAN)
    assert knock(peers, lab, (WAN, 7160), server)
    lab.gw.ip(f"addr add {HIGHER}/24 dev wan")
    lab.gw.ip(f"route replace default via {ROUTER} dev wan src {HIGHER}")
    try:
        address = announced(ear, 0, lambda d: d[8:12] == socket.inet_aton(HIGHER))
        assert address[:4] == b"\x00\x80\x00\x00"
        assert mappings(gw) == [] and client.map(17, 4160, 7160)[2:] == (7160, HIGHER)
        assert knock(peers, lab, (HIGHER, 7160), server)
    finally:
        lab.gw.ip(f"route replace default via {ROUTER} dev wan")
        lab.gw.ip(f"addr del {HIGHER}/24 dev wan")


def test_a_flood_of_requests_leaves_the_gateway_responsive(client, gw, lab, peers):
    flood = peers.udp(lab.lan1)
    flood.connect((GATEWAY, 5351))
    message = request(1, port_body(17, 4170, nonce=b"another one!"))
    begun = time.monotonic()
    for n in range(20_000):
        flood.send(message)
        if n % 5000 == 0:
            gw.status()
    gw.status()
    assert time.monotonic() - begun < TIMEOUT
    until = time.monotonic() + TIMEOUT
    client.sock.settimeout(0.5)
    while True:
        try:
            assert client.map(17, 4171, 7171)[0] == 0
            break
        except TimeoutError:
            assert time.monotonic() < until
