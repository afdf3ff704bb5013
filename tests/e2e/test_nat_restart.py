"""State of NAT over a restart, a reload and a new WAN address; its log and its limits."""

import contextlib
import json
import os
import re
import select
import signal
import socket
import threading
import time

import pytest

from harness.lab import Addresses as A
from harness.nat import LAN2_OTHER, forward, nat_config, seen_as, silent, table
from harness.port_counters import restarted
from harness.wire import ICMP, Ether

pytestmark = pytest.mark.sag

WAN, INET, NARROW = A.GW_WAN[4], A.INET[4], A.NARROW[4]
LAN1, LAN2 = A.LAN1[4], A.LAN2[4]
OTHER_WAN = "198.51.100.9"
WEB = forward("web", "tcp", "8080", (LAN1, "80"))
CONFIG = nat_config(WEB)


@pytest.fixture
def gw(gw_empty):
    return gw_empty(CONFIG)


@pytest.fixture
def gw_empty(gw_changed, gateway, hidden):
    """A function: the gateway with the configuration given, and no sessions."""

    def change(config):
        if gateway.running is not None:
            gateway.ctl("sessions", "flush", "--all")
        return gw_changed(config)

    return change


def translations(gw, *filters):
    """{first tuple: what it became} of the sessions that are translated."""
    tuple_of = lambda s, p: tuple(s[f"{p}{k}"] for k in ("src", "sport", "dst", "dport"))
    sessions = gw.ctl("sessions", "--nat", "--limit", "1000", *filters)["sessions"]
    return {(s["proto"], *tuple_of(s, "")): tuple_of(s, "nat_") for s in sessions}


class Chat:
    """A TCP connection on which both sides send all the time."""

    def __init__(self, one, other):
        self.ends, self.rounds, self.failed = (one, other), 0, None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            while not self.stop.is_set():
                for here, there in (self.ends, self.ends[::-1]):
                    here.sendall(b"x" * 3000)
                    left = 3000
                    while left:
                        left -= len(there.recv(left)) or 1 / 0
                self.rounds += 1
                time.sleep(0.005)
        except (OSError, ZeroDivisionError) as error:
            self.failed = error

    def goes_on(self):
        """Whether it makes progress now."""
        before, end = self.rounds, time.monotonic() + 10
        while self.rounds < before + 3 and self.failed is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.failed is None and self.rounds >= before + 3

    def close(self):
        self.stop.set()
        self.thread.join(0.2)
        for sock in self.ends:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.thread.join()


@pytest.fixture
def chats(lab, peers):
    """Makes connections that talk until the test ends: (Chat, whom the server sees)."""
    made = []

    def chat(client, server, address, port, source):
        listener = peers.listen(server, address[1], port[1])
        one = peers.connect(client, (address[0], port[0]), source=source, timeout=15)
        other, peer = peers.accept(listener, timeout=15)
        made.append(Chat(one, other))
        return made[-1], peer

    yield chat
    for one in made:
        one.close()


class Flows:
    """Flows of all kinds, some of them renumbered."""

    def __init__(self, lab, peers, chats, port):
        out = lambda ns, dport: chats(ns, lab.inet, (INET, INET), (dport, dport), ("0.0.0.0", port))
        self.chats = [
            out(lab.lan1, 5501),
            out(lab.lan2, 5502),
            chats(lab.inet, lab.lan1, (WAN, LAN1), (8080, 80), (INET, 0)),
        ]
        self.lab, self.peers, self.port = lab, peers, port
        self.udp_server = peers.udp(lab.inet, INET, 5503)
        self.udp = [peers.udp(ns, port=port) for ns in (lab.lan1, lab.lan2)]
        self.seen = [seen_as(sock, self.udp_server, (INET, 5503)) for sock in self.udp]
        assert len({peer for _, peer in self.chats}) == 3 and len(set(self.seen)) == 2

    def go_on(self):
        assert all(chat.goes_on() for chat, _ in self.chats), [chat.failed for chat, _ in self.chats]
        for sock, peer in zip(self.udp, self.seen):
            # First the answer to what was sent before, then more.
            self.udp_server.sendto(b"still there?", peer)
            assert sock.recv(100) == b"still there?"
            assert seen_as(sock, self.udp_server, (INET, 5503)) == peer

    def are_remembered(self):
        """Who shares a binding, who gets another, and who may send to it."""
        lab, peers = self.lab, self.peers
        elsewhere = peers.udp(lab.inet, NARROW)
        to = elsewhere.getsockname()
        elsewhere.sendto(b"may not", self.seen[0])
        assert silent(self.udp[0], 0.2)
        neighbour = peers.udp(lab.inet, INET)
        neighbour.sendto(b"may", self.seen[0])
        assert self.udp[0].recv(100) == b"may"
        assert [seen_as(sock, elsewhere, to) for sock in self.udp] == self.seen
        third = seen_as(peers.udp(lab.lan2, LAN2_OTHER, self.port), elsewhere, to)
        assert third not in self.seen


def test_flows_outlive_kill_9(gw, lab, peers, chats, accounting):
    flows = Flows(lab, peers, chats, 48000)
    before = translations(gw)
    assert len(before) >= 5
    gw.kill()
    assert all(chat.goes_on() for chat, _ in flows.chats), "XDP translates without the daemon"
    restarted(gw, accounting, CONFIG, quiet=False)
    after = translations(gw)
    assert {k: after.get(k) for k in before} == before
    assert {b["outside_port"] for b in gw.ctl("nat", "bindings")["bindings"]} >= {port for _, port in flows.seen}
    flows.go_on()
    flows.are_remembered()
    for chat, _ in flows.chats:
        chat.close()
    accounting.open()


def test_flows_outlive_a_restart(gw, lab, peers, chats, accounting):
    flows = Flows(lab, peers, chats, 48100)
    before = translations(gw)
    pid = gw.pid()
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + 10
    with contextlib.suppress(FileNotFoundError, IndexError):
        while open(f"/proc/{pid}/stat", encoding="ascii").read().rsplit(")", 1)[1].split()[0] != "Z":
            assert time.monotonic() < end, "SIGTERM did not end the daemon"
            time.sleep(0.01)
    gw.running = None
    restarted(gw, accounting, CONFIG, quiet=False)
    after = translations(gw)
    assert {k: after.get(k) for k in before} == before
    flows.go_on()
    flows.are_remembered()
    for chat, _ in flows.chats:
        chat.close()
    accounting.open()


def test_flows_outlive_reloads(gw, lab, peers, chats):
    """The same file, another one with more in it, and back."""
    flows = Flows(lab, peers, chats, 48200)
    before = translations(gw)
    more = nat_config(WEB, forward("other", "udp", "7000", (LAN2, "7000")), table("nat", host_sessions=1000))
    for config in (CONFIG, more, CONFIG):
        gw.reload(config)
        flows.go_on()
        after = translations(gw)
        assert {k: after.get(k) for k in before} == before
    flows.are_remembered()


def test_a_forward_that_is_taken_away(gw, lab, peers, chats):
    """Its sessions end; others are not affected."""
    flows = Flows(lab, peers, chats, 48300)
    gw.reload(nat_config())
    (outward, _), _, (inward, (_, port)) = flows.chats
    assert outward.goes_on()
    # The client's next packet was for the gateway itself, which has no such connection.
    inward.stop.set()
    assert select.select([inward.ends[0]], [], [], 5)[0]
    with pytest.raises(ConnectionResetError):
        inward.ends[0].recv(1)
    assert not translations(gw, "--dport", "8080", "--sport", str(port))
    # SYNs that nobody wants are dropped (RFC 5382 REQ-4).
    with pytest.raises(TimeoutError):
        peers.connect(lab.inet, (WAN, 8080), source=(INET, 0))


# --- another address -----------------------------------------------------------------------------


def move_wan(lab, old, new):
    """As a DHCP client does when the lease is for another address."""
    lab.gw.batch(
        f"addr add {new}/24 dev wan\naddr del {old}/24 dev wan\nroute replace default via {A.WAN_ROUTER[4]}\n"
    )


def own_address(gw, address, timeout=5.0):
    """Waits until the gateway translates to this address."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if [p["address"] for p in gw.ctl("nat")["pools"]] == [address]:
            return
        time.sleep(0.02)
    raise AssertionError(f"the pools are {gw.ctl('nat')['pools']}, not {address}")


@pytest.fixture
def movable(gw, lab):
    """The WAN address can change, and is the lab's again afterwards."""
    lab.gw.run(["sysctl", "-q", "-w", "net.ipv4.conf.wan.promote_secondaries=1"])
    yield gw
    lab.gw.ip(f"addr add {WAN}/24 dev wan", check=False)
    lab.gw.ip(f"addr del {OTHER_WAN}/24 dev wan", check=False)
    lab.gw.ip(f"route replace default via {A.WAN_ROUTER[4]}")
    own_address(gw, WAN)


def test_a_new_wan_address(movable, lab, peers):
    """Old sessions end and begin again from the new address; port forwards move with it."""
    gw = movable
    server = peers.udp(lab.inet, INET, 5510)
    clients = [peers.udp(ns, port=48400) for ns in (lab.lan1, lab.lan2)]
    assert {seen_as(c, server, (INET, 5510))[0] for c in clients} == {WAN}
    move_wan(lab, WAN, OTHER_WAN)
    own_address(gw, OTHER_WAN)
    seen = [seen_as(c, server, (INET, 5510)) for c in clients]
    assert {address for address, _ in seen} == {OTHER_WAN} and len(set(seen)) == 2
    listener = peers.listen(lab.inet, INET, 5511)
    tcp = peers.connect(lab.lan1, (INET, 5511))
    assert peers.accept(listener)[1] == (OTHER_WAN, tcp.getsockname()[1])
    assert lab.lan1.ping(INET, count=3) == 3
    listener = peers.listen(lab.lan1, LAN1, 80)
    client = peers.connect(lab.inet, (OTHER_WAN, 8080), source=(INET, 0))
    assert peers.accept(listener)[1] == client.getsockname()
    # The hosts have nothing left at the old address.
    assert {t[0] for t in translations(gw, "--sport", "48400").values()} == {OTHER_WAN}
    assert {b["outside"] for b in gw.ctl("nat", "bindings", "--inside-port", "48400")["bindings"]} == {OTHER_WAN}
    # The gateway itself.
    assert lab.gw.ping(INET, count=3) == 3


def test_no_wan_address_for_a_while(movable, lab, peers):
    """Nothing leaves untranslated; with the address the sessions come back."""
    gw = movable
    server = peers.udp(lab.inet, INET, 5520)
    client = peers.udp(lab.lan1, port=48410)
    assert seen_as(client, server, (INET, 5520)) == (WAN, 48410)
    # The route stays without the address, as after a lease that ran out.
    lab.gw.batch(f"route replace default via {A.WAN_ROUTER[4]} dev wan onlink\naddr flush dev wan scope global\n")
    lab.gw.ip(f"route replace default via {A.WAN_ROUTER[4]} dev wan onlink")
    end = time.monotonic() + 5
    while gw.ctl("nat")["pools"] and time.monotonic() < end:
        time.sleep(0.02)
    before = gw.drops()
    fresh = peers.udp(lab.lan1, port=48412)
    for sock in (client, fresh):
        sock.sendto(b"nowhere", (INET, 5520))
    assert silent(server)
    after = gw.drops()
    assert after.get(("0", "nat-no-address"), 0) - before.get(("0", "nat-no-address"), 0) == 2, after
    lab.gw.batch(
        f"addr add {WAN}/24 dev wan\naddr add {A.GW_WAN[6]}/64 dev wan\nroute replace default via {A.WAN_ROUTER[4]}\n"
    )
    lab.gw.ip(f"-6 route replace default via {A.WAN_ROUTER[6]}")
    own_address(gw, WAN)
    assert seen_as(client, server, (INET, 5520)) == (WAN, 48410)
    assert seen_as(fresh, server, (INET, 5520)) == (WAN, 48412)


# --- flush ---------------------------------------------------------------------------------------


def test_flush(gw, lab, peers):
    """All bindings go with their sessions; hosts that keep sending get new ones."""
    server = peers.udp(lab.inet, INET, 5530)
    client = peers.udp(lab.lan1, port=48500)
    assert seen_as(client, server, (INET, 5530)) == (WAN, 48500)
    listener = peers.listen(lab.inet, INET, 5531)
    tcp = peers.connect(lab.lan1, (INET, 5531), source=("0.0.0.0", 48502))
    accepted, peer = peers.accept(listener)
    flushed = gw.ctl("sessions", "flush", "--all")["flushed"]
    assert flushed >= 2
    nat = gw.ctl("nat")
    assert nat["totals"]["bindings"] == 0 and nat["totals"]["hosts"] == 0
    assert [p[kind]["used"] for p in nat["pools"] for kind in ("tcp", "udp", "icmp")] == [0, 0, 0]
    # The port is the gateway's own now: no host inside gets the packet.
    server.sendto(b"too late", (WAN, 48500))
    assert silent(client, 0.2)
    assert seen_as(client, server, (INET, 5530)) == (WAN, 48500)
    tcp.sendall(b"in the middle of a connection")
    assert accepted.recv(100) == b"in the middle of a connection" and peer == (WAN, 48502)


# --- records -------------------------------------------------------------------------------------


def records(path, complete, timeout=5.0):
    """The NAT log as objects, once `complete(lines)` holds."""
    end = time.monotonic() + timeout
    while True:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        if complete(lines) or time.monotonic() > end:
            return lines
        time.sleep(0.02)


def test_log_of_sessions(gw_empty, lab, peers):
    """A record for each beginning and end of a session, with all its fields."""
    path = lab.run_dir / "nat.log"
    gw = gw_empty(nat_config(WEB, table("nat", log="sessions", log_file=str(path))))
    server, listener = peers.udp(lab.inet, INET, 5540), peers.listen(lab.lan1, LAN1, 80)
    seen = {}
    for ns, src in ((lab.lan1, LAN1), (lab.lan2, LAN2)):
        client = peers.udp(ns, port=48600)
        for _ in range(3):
            peer = seen_as(client, server, (INET, 5540), data=b"x" * 100)
        seen[("created", 17, src, 48600, INET, 5540)] = (*peer, INET, 5540)
    inward = peers.connect(lab.inet, (WAN, 8080), source=(INET, 0))
    peers.accept(listener)
    port = inward.getsockname()[1]
    seen[("created", 6, INET, port, WAN, 8080)] = (INET, port, LAN1, 80)
    assert lab.lan1.ping(INET, count=1) == 1
    count = lambda lines, event: sum(line["event"] == event for line in lines)
    records(path, lambda lines: count(lines, "session-created") >= 4)
    gw.ctl("sessions", "flush", "--all")
    lines = records(path, lambda lines: count(lines, "session-ended") >= count(lines, "session-created"))
    assert [line["seq"] for line in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines)))
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)
    tuples = {}
    for line in lines:
        what = line["event"].split("-")[1]
        key = (what, line["proto"], line["src"], line["sport"], line["dst"], line["dport"])
        tuples[key] = (line["nat_src"], line["nat_sport"], line["nat_dst"], line["nat_dport"])
        if what == "ended" and line["sport"] == 48600:
            assert (line["packets"], line["reply_packets"]) == (3, 3)
            assert (line["bytes"], line["reply_bytes"]) == (3 * 128, 3 * 131)
    for key, became in seen.items():
        assert tuples[key] == became
        assert tuples[("ended", *key[1:])] == became
    assert any(key[1] == 1 and became[0] == WAN for key, became in tuples.items()), "the ping"
    # Rotation: the old file is complete, the new one continues the numbering.
    old = path.rename(path.with_suffix(".old"))
    gw.reload(gw.running)
    seen_as(peers.udp(lab.lan1), server, (INET, 5540))
    fresh = records(path, lambda lines: lines)
    assert fresh[0]["seq"] == json.loads(old.read_text().splitlines()[-1])["seq"] + 1
    assert gw.ctl("nat")["totals"]["log_lost"] == 0


def test_log_of_port_blocks(gw_empty, lab, peers):
    """A record for each block of ports that a host gets; its sessions use no other ports."""
    path = lab.run_dir / "blocks.log"
    gw = gw_empty(nat_config(table("nat", log="blocks", log_file=str(path), port_block=64)))
    server = peers.udp(lab.inet, INET, 5550)
    clients = {src: [peers.udp(ns) for _ in range(80)] for ns, src in ((lab.lan1, LAN1), (lab.lan2, LAN2))}
    ports = {src: [seen_as(sock, server, (INET, 5550))[1] for sock in socks] for src, socks in clients.items()}
    gw.ctl("sessions", "flush", "--all")
    lines = records(path, lambda lines: sum(r["event"] == "block-returned" for r in lines) >= 4)
    block = lambda r: (r["host"], r["external"], r["first_port"], r["last_port"])
    assigned, returned = ([block(r) for r in lines if r["event"] == f"block-{what}"] for what in ("lent", "returned"))
    assert len(assigned) >= 4 and sorted(assigned) == sorted(returned), lines
    # Sessions that ended before the reload may have their records here; these have none.
    assert not any(r["event"] == "session-created" or r.get("dport") == 5550 for r in lines), lines
    assert [r["seq"] for r in lines] == list(range(lines[0]["seq"], lines[0]["seq"] + len(lines)))
    for _host, external, first, last in assigned:
        assert external == WAN and first % 64 == 0 and last == first + 63
    for src, used in ports.items():
        own = [(first, last) for host, _, first, last in assigned if host == src]
        assert len(own) >= 2 and all(any(a <= p <= b for a, b in own) for p in used)


# --- limits --------------------------------------------------------------------------------------


def refusals(sniffer):
    """What admin-prohibited errors quote: source ports."""
    frames = (Ether(f) for f in sniffer.drain(quiet=0.15))
    errors = [f for f in frames if ICMP in f and (f[ICMP].type, f[ICMP].code) == (3, 13)]
    return [int.from_bytes(bytes(f[ICMP].payload)[20:22], "big") for f in errors]


def dropped(gw, before, port, reason):
    return gw.drops().get((port, reason), 0) - before.get((port, reason), 0)


def test_sessions_of_a_host_are_limited(gw_empty, lab, peers, wire):
    gw = gw_empty(nat_config(WEB, table("nat", host_sessions=5)))
    before, totals = gw.drops(), gw.ctl("nat")["totals"]
    assert totals["host_limit"] == 5
    icmp_errors = wire.sniffer(lab.lan1, "eth0")
    server = peers.udp(lab.inet, INET, 5560)
    clients = [peers.udp(lab.lan1, port=48700 + n) for n in range(7)]
    for client in clients[:5]:
        seen_as(client, server, (INET, 5560))
    for client in clients[5:]:
        client.connect((INET, 5560))
        client.send(b"too many")
        # The host's own kernel reports the error to the program.
        with pytest.raises(OSError) as refused:
            client.recv(100)
        assert not isinstance(refused.value, TimeoutError)
    assert refusals(icmp_errors) == [48705, 48706]
    assert silent(server, 0.1)
    with pytest.raises(OSError):
        peers.connect(lab.lan1, (INET, 5561), timeout=1)
    assert dropped(gw, before, "0", "snat-host-limit") >= 3
    assert gw.ctl("nat")["totals"]["host_limit_hits"] - totals["host_limit_hits"] >= 3
    assert "nat-host-limit" in gw.tail() and LAN1 in gw.tail()
    # Its existing sessions work, other hosts and incoming traffic are not affected.
    seen_as(clients[0], server, (INET, 5560))
    seen_as(peers.udp(lab.lan2), server, (INET, 5560))
    listener = peers.listen(lab.lan1, LAN1, 80)
    peers.connect(lab.inet, (WAN, 8080), source=(INET, 0))
    peers.accept(listener)
    gw.ctl("sessions", "flush", "--host", LAN1)
    assert seen_as(peers.udp(lab.lan1, port=48710), server, (INET, 5560)) == (WAN, 48710)


def test_ports_run_out(gw_empty, lab, peers, wire):
    gw = gw_empty(nat_config(table("nat", port_range="50000/50007", warn_percent=50)))
    before, pool = gw.drops(), gw.ctl("nat")["pools"][0]
    assert pool["udp"]["capacity"] == 8
    icmp_errors = wire.sniffer(lab.lan2, "eth0")
    server = peers.udp(lab.inet, INET, 5570)
    clients = [peers.udp(ns, port=48800 + n) for n in range(4) for ns in (lab.lan1, lab.lan2)]
    seen = [seen_as(client, server, (INET, 5570)) for client in clients]
    assert sorted(seen) == [(WAN, port) for port in range(50000, 50008)]
    late = peers.udp(lab.lan2, port=48899)
    late.sendto(b"?", (INET, 5570))
    assert refusals(icmp_errors) == [48899]
    assert dropped(gw, before, "3", "snat-exhausted") == 1
    after = gw.ctl("nat")["pools"][0]
    assert after["exhausted"] - pool["exhausted"] == 1
    assert (after["udp"]["used"], after["warned"]) == (8, True) and after["udp"]["peak"] >= 8
    log = gw.tail()
    assert "nat-pool-low" in log and "nat-pool-exhausted" in log
    # Each protocol has ports of its own; ports below 1024 too; and a binding serves any destination.
    listener = peers.listen(lab.inet, INET, 5571)
    peers.connect(lab.lan1, (INET, 5571))
    assert peers.accept(listener)[1][0] == WAN
    assert seen_as(peers.udp(lab.lan1, port=900), server, (INET, 5570)) == (WAN, 900)
    elsewhere = peers.udp(lab.inet, NARROW)
    assert seen_as(clients[0], elsewhere, elsewhere.getsockname()) == seen[0]
    samples = [rf'ports_used{{address="{WAN}",protocol="udp"}} 9', rf'exhausted_total{{address="{WAN}"}} {after["exhausted"]}']
    end = time.monotonic() + 5
    while True:  # samples are a second old at most
        metrics = lab.gw.out(["curl", "-sS", "http://127.0.0.1:9477/metrics"])
        if all(re.search(rf"sag_nat_{sample}\b", metrics) for sample in samples):
            break
        assert time.monotonic() < end, "\n".join(line for line in metrics.splitlines() if line.startswith("sag_nat"))
        time.sleep(0.1)
    # Released, assigned again.
    gw.ctl("sessions", "flush", "--nat-sport", "50003")
    assert seen_as(late, server, (INET, 5570)) == (WAN, 50003)


# --- numbers -------------------------------------------------------------------------------------


def test_numbers(gw, lab, peers, wire):
    gw.ctl("sessions", "flush", "--all")
    start = gw.ctl("nat")
    one, two = peers.udp(lab.inet, INET, 5580), peers.udp(lab.inet, NARROW, 5580)
    client, other = peers.udp(lab.lan1, port=48900), peers.udp(lab.lan2, port=48900)
    seen_as(client, one, (INET, 5580))
    seen_as(client, two, (NARROW, 5580))
    renumbered = seen_as(other, one, (INET, 5580))
    listener = peers.listen(lab.lan1, LAN1, 80)
    peers.connect(lab.inet, (WAN, 8080), source=(INET, 0))
    peers.accept(listener)
    peers.udp(lab.inet, NARROW).sendto(b"unsolicited", renumbered)
    assert silent(other, 0.2)
    nat = gw.ctl("nat")
    entries = {e["id"]: e for e in nat["entries"]}
    was = {e["id"]: e for e in start["entries"]}
    hits = {id: e["hits"] - was[id]["hits"] for id, e in entries.items()}
    assert hits == {"port 1": 3, "web": 1}
    assert {id: e["sessions"] for id, e in entries.items()} == {"port 1": 3, "web": 1}
    assert entries["port 1"]["external"] == WAN and entries["web"]["internal"] == f"{LAN1}:80"
    pool = nat["pools"][0]
    assert (pool["address"], pool["mapping"], pool["filtering"]) == (WAN, "endpoint-independent", "address-dependent")
    assert (pool["udp"]["used"], pool["tcp"]["used"], pool["icmp"]["used"]) == (2, 0, 0)
    assert pool["filtered"] - start["pools"][0]["filtered"] == 1
    assert (nat["totals"]["bindings"], nat["totals"]["hosts"]) == (2, 2)
    bindings = gw.ctl("nat", "bindings", "--inside-port", "48900")["bindings"]
    assert {(b["inside"], b["outside_port"], b["sessions"]) for b in bindings} == {
        (LAN1, 48900, 2),
        (LAN2, renumbered[1], 1),
    }
    assert gw.ctl("nat", "bindings", "--outside-port", str(renumbered[1]), "--count")["total"] == 1
