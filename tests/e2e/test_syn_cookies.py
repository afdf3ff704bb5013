"""SYN cookies for services behind the gateway: two kernels' TCP through a connection that the gateway has opened."""

import hashlib
import random
import socket
import threading

import pytest

from harness.flood import Clients, Flood, Server
from harness.lab import Addresses as A
from harness.nat import forward, nat_config, table
from harness.port_counters import restarted
from harness.waiting import within

pytestmark = pytest.mark.sag

PORT, CLOSED, BULK, BANNER = 7443, 7444, 7445, 7446
# As clients know it: by IPv4 a port that is forwarded, by IPv6 the server's own address.
SERVICE = {4: A.GW_WAN[4], 6: A.LAN1[6]}
SPOOFED = {4: "198.18.0.0/15", 6: "2001:db8:bad::/48"}
FLOWS = 8192
MEGABYTES = 2


def config(mode, ports=(PORT, CLOSED, BULK, BANNER), **keys):
    text = ""
    for port in ports:
        text += forward(f"fwd-{port}", "tcp", str(port), (A.LAN1[4], str(port)))
        text += table("syn_cookies", id=f"v4-{port}", port=port, mode=mode, **keys)
        text += table("syn_cookies", id=f"v6-{port}", address=SERVICE[6], port=port, mode=mode, **keys)
    return nat_config(text, flows=FLOWS)


@pytest.fixture(scope="module")
def server(lab):
    it = Server(lab.lan1, PORT)
    yield it
    it.close()


@pytest.fixture(scope="module")
def spoofed(lab):
    """Nobody has these addresses, and the provider's router says so to nobody."""
    for family, net in SPOOFED.items():
        lab.wan.ip(f"-{family} route add blackhole {net}")


@pytest.fixture
def gw(gw_changed):
    return gw_changed(config("always"))


def inet_family(family):
    return socket.AF_INET if family == 4 else socket.AF_INET6


def connect(ns, family, port, timeout=10):
    sock = ns.socket(inet_family(family), socket.SOCK_STREAM)
    sock.settimeout(timeout)
    sock.connect((SERVICE[family], port))
    return sock


def listen(ns, family, port):
    sock = ns.socket(inet_family(family), socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    sock.listen(8)
    sock.settimeout(10)
    return sock


def row(gw, family, port):
    rows = lambda: [r for r in gw.status()["syn_cookies"] if r["id"] == f"v{family}-{port}"]
    within(5, "the service is in the status", rows)
    return rows()[0]


def read_all(sock):
    digest, size = hashlib.sha256(), 0
    while data := sock.recv(65536):
        digest.update(data)
        size += len(data)
    return digest.hexdigest(), size


def send_all(sock, data):
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def both_ways(lab, family, seed):
    """Sends data both ways at once through one connection, and closes it from both sides."""
    rng = random.Random(seed)
    up, down = (rng.randbytes(MEGABYTES << 20) for _ in range(2))
    got = {}
    with listen(lab.lan1, family, BULK) as listener, connect(lab.inet, family, BULK) as client:
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(20)
            client.settimeout(20)
            work = [
                threading.Thread(target=send_all, args=(client, up)),
                threading.Thread(target=send_all, args=(accepted, down)),
                threading.Thread(target=lambda: got.update(down=read_all(client))),
                threading.Thread(target=lambda: got.update(up=read_all(accepted))),
            ]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
    for way, data in (("up", up), ("down", down)):
        assert got[way] == (hashlib.sha256(data).hexdigest(), len(data)), way


@pytest.mark.parametrize("family", [4, 6])
def test_content_is_the_same_both_ways(gw, lab, seed, family):
    before = row(gw, family, BULK)
    both_ways(lab, family, seed)
    after = row(gw, family, BULK)
    assert after["active"]
    assert (after["sent"] - before["sent"], after["accepted"] - before["accepted"]) == (1, 1), (before, after)
    rows = gw.ctl("sessions", "--limit", "5000")["sessions"]
    assert not [s for s in rows if s["state"] in ("syn", "syn-ack")], rows


@pytest.mark.parametrize("family", [4, 6])
def test_who_speaks_first(gw, lab, family):
    """The server greets; its client has sent nothing but the cookie."""
    with listen(lab.lan1, family, BANNER) as listener, connect(lab.inet, family, BANNER) as client:
        accepted, peer = listener.accept()
        with accepted:
            assert peer[:2] == client.getsockname()[:2], "the client's own address and port"
            accepted.sendall(b"220 ready\r\n")
            assert client.recv(100) == b"220 ready\r\n"
            client.sendall(b"QUIT\r\n")
            assert accepted.recv(100) == b"QUIT\r\n"
        assert client.recv(100) == b""


@pytest.mark.parametrize("family", [4, 6])
def test_a_server_that_refuses(gw, lab, family):
    # The client is connected; the reset may come before it knows.
    with pytest.raises(ConnectionResetError), connect(lab.inet, family, CLOSED, timeout=5) as client:
        client.recv(1)


@pytest.mark.parametrize("family", [4, 6])
def test_others_connect_during_a_flood(gw, lab, server, spoofed, family):
    macs = lab.gw.mac("wan"), lab.wan.mac("gw")
    gw.ctl("sessions", "flush", "--all")
    before = row(gw, family, PORT)
    others = Clients(lab.inet, family, SERVICE[family], PORT)
    with others.connected(5) as held:
        with (
            Flood(lab.wan, "gw", macs, (SPOOFED[family], SERVICE[family]), "syn", 4000, 4, PORT) as syns,
            Flood(lab.wan, "gw", macs, (SPOOFED[family], SERVICE[family]), "ack", 1000, 4, PORT) as acks,
        ):
            done, tried = others.connect_while(lambda: syns.running() and acks.running())
        sessions = gw.status()["sessions"][f"ipv{family}"]
        after = row(gw, family, PORT)
        print(f"{syns.sent} SYNs, {acks.sent} ACKs, {done} of {tried} connections, {sessions} sessions, {after}")
        assert all(others.alive(sock) for sock in held)
    assert tried > 10 and done * 100 >= tried * 95, f"{done} of {tried}"
    assert sessions <= tried + 20, "the flood has none"
    assert after["sent"] - before["sent"] > syns.sent * 0.9
    assert after["refused"] - before["refused"] > acks.sent * 0.9
    drops = gw.drops()
    assert drops["1", "syn-cookie"] >= after["sent"]
    assert drops["1", "syn-cookie-invalid"] >= after["refused"]


def test_a_flood_turns_cookies_on(gw_changed, lab, server, spoofed):
    gw = gw_changed(config("auto", ports=(PORT,), rate=500))
    macs = lab.gw.mac("wan"), lab.wan.mac("gw")
    others = Clients(lab.inet, 4, SERVICE[4], PORT)
    within(3, "no cookies are sent", lambda: not row(gw, 4, PORT)["active"])
    with others.connected(3) as before:
        with Flood(lab.wan, "gw", macs, (SPOOFED[4], SERVICE[4]), "syn", 4000, 3, PORT) as syns:
            within(3, "cookies are sent", lambda: row(gw, 4, PORT)["active"])
            done, tried = others.connect_while(syns.running)
        state = row(gw, 4, PORT)
        print(syns.sent, done, tried, state)
        assert done * 100 >= tried * 95, f"{done} of {tried}"
        assert state["active"] and state["accepted"] >= done * 0.9
        assert any("flood of SYNs" in w for w in gw.status()["warnings"])
        assert all(others.alive(sock) for sock in before)


@pytest.mark.parametrize("family", [4, 6])
def test_connections_outlive_the_daemon(gw, accounting, lab, server, family):
    others = Clients(lab.inet, family, SERVICE[family], PORT)
    with others.connected(3) as socks:
        assert all(others.alive(sock) for sock in socks)
        gw.kill()
        restarted(gw, accounting, config("always"))
        assert all(others.alive(sock, b"after the restart") for sock in socks)
