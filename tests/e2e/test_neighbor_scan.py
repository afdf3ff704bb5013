"""Somebody scans addresses that nobody has: next hops are asked for within bounds, other hosts find theirs meanwhile, and
afterwards all is as before, over both families."""

import contextlib
import errno
import json
import select
import socket
import threading
import time

import pytest

from harness.flood import Flood

pytestmark = pytest.mark.sag

SECONDS = 6
TARGETS = 20
PORT = 7000
# Unresolved entries that the gateway may have the kernel hold (both ports of a family), and a few of the hosts' own.
MOST_INCOMPLETE = 256 + 16

STRANGER, FRESH = "2001:db8:203::77", "2001:db8:203::f:{}"
VICTIM = {4: "192.0.2.11", 6: "2001:db8:2::11"}
SILENT = {4: "10.77.200.{}", 6: "2001:db8:1::200:{}"}


@pytest.fixture(scope="module")
def silent(lab):
    """Hosts that have never said anything: a /16 behind port 3 (IPv4), and in the /64 of port 0 (IPv6)."""
    lab.gw.ip("addr add 10.77.0.1/16 dev lan-b")
    lab.lan1.ip(f"addr add {VICTIM[4]}/26 dev eth0")
    lab.lan2.ip(f"addr add {VICTIM[6]}/64 dev eth0 nodad")
    numbers = range(1, 5 * TARGETS)
    lab.lan2.batch("\n".join(f"addr add {SILENT[4].format(n)}/32 dev eth0" for n in numbers))
    lab.lan1.batch("\n".join(f"addr add {SILENT[6].format(n)}/64 dev eth0 nodad" for n in numbers))
    lab.lan1.run(["sysctl", "-qw", "net.ipv6.conf.eth0.max_addresses=1000"], check=False)
    with contextlib.ExitStack() as listeners:
        for ns, family in ((lab.lan2, socket.AF_INET), (lab.lan1, socket.AF_INET6)):
            sock = listeners.enter_context(ns.socket(family, socket.SOCK_STREAM))
            sock.bind(("", PORT))
            sock.listen(512)
        yield


def scan(lab, family, attack, made_up=False):
    """One host of the LAN scans the /16, somebody on the Internet scans the LAN's /64; `made_up`: by a source for each."""
    if family == 4:
        ns, dev, port, way = lab.lan1, "eth0", "lan-a", ("192.0.2.10", "10.77.0.0")
    else:
        ns, dev, port, way = lab.wan, "gw", "wan", ("2001:db8:203::99", "2001:db8:1::")
    macs = lab.gw.mac(port), ns.mac(dev)
    kind = "scan-made-up" if made_up else "scan"
    return Flood(ns, dev, macs, way, kind, attack.rate, SECONDS + 4)


def connect(ns, family, target, source=None):
    """A connection that has begun."""
    sock = ns.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind((source or VICTIM[family], 0))
    assert sock.connect_ex((target, PORT)) in (0, errno.EINPROGRESS)
    return sock


def opened(ns, family, numbers, every, sources=None):
    """Which of the connections to these silent hosts, begun one after the other, opened within three seconds, and after what
    time. `sources`: an address for each."""
    result = {}

    def one(number):
        begun = time.monotonic()
        source = sources.format(number) if sources else None
        with connect(ns, family, SILENT[family].format(number), source) as sock:
            poll = select.poll()
            poll.register(sock, select.POLLOUT)
            up = poll.poll(3000) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            result[number] = time.monotonic() - begun if up else None

    threads = []
    for number in numbers:
        threads.append(threading.Thread(target=one, args=(number,)))
        threads[-1].start()
        time.sleep(every)
    for thread in threads:
        thread.join()
    return result


def unresolved(lab):
    """Entries of the gateway's kernel that nobody has answered for."""
    entries = json.loads(lab.gw.out(["ip", "-j", "neigh", "show", "nud", "all"]))
    return sum(1 for e in entries if {"INCOMPLETE", "FAILED"} & set(e.get("state", [])))


@pytest.mark.parametrize("family", [4, 6])
def test_others_find_their_next_hops_during_a_scan_and_after_it(gw, lab, silent, family, attack):
    victim = {4: lab.lan1, 6: lab.lan2}
    numbers = iter(range(1, 3 * TARGETS))
    take = lambda count: [next(numbers) for _ in range(count)]
    # Both victims are known neighbors, as hosts are that speak to the gateway.
    for f in (4, 6):
        gateway = {4: "192.0.2.1", 6: "2001:db8:2::1"}[f]
        assert victim[f].ping(gateway, count=2, options=["-I", VICTIM[f]]) == 2
    epoch, lines = gw.status()["config_epoch"], len(lab.log.read_text().splitlines())
    most, slowest = 0, 0.0
    with scan(lab, family, attack) as scanner:
        time.sleep(1)
        during = {}
        collect = threading.Thread(
            target=lambda: during.update(opened(victim[family], family, take(TARGETS), SECONDS / TARGETS))
        )
        collect.start()
        while collect.is_alive():
            at = time.monotonic()
            status = gw.status()
            slowest = max(slowest, time.monotonic() - at)
            most = max(most, unresolved(lab))
            time.sleep(0.2)
    print(f"{scanner.sent} packets in {SECONDS + 4} s")
    up = [t for t in during.values() if t is not None]
    print(f"{len(up)} of {len(during)} connections within 3 s, the slowest after {max(up, default=0):.3f} s")
    print(f"at most {most} unresolved entries; status answers within {slowest:.3f} s")
    assert scanner.sent > attack.rate * SECONDS / 2, "the scan itself was held up"
    assert len(up) >= 0.95 * TARGETS, during
    assert most <= MOST_INCOMPLETE
    port = {4: "0", 6: "1"}[family]
    assert gw.drops().get((port, "neighbor-rate-limit"), 0) > 0
    assert any("scan of addresses" in line for line in status["warnings"]), status["warnings"]
    # Afterwards new hosts are reached at once, over the other family too.
    for f in (family, 10 - family):
        after = opened(victim[f], f, [2 * TARGETS + family] if f != family else take(1), 0)
        assert None not in after.values(), (f, after)
    time.sleep(6)
    assert unresolved(lab) <= 16
    new = lab.log.read_text().splitlines()[lines:]
    # A line when it begins and one when it is over, by the port of the scanner, and by that of the addresses.
    assert 1 <= sum("neighbor-scan" in line for line in new) <= 4, new
    assert len(new) < 20, new
    assert gw.status()["config_epoch"] == epoch


@pytest.fixture
def strangers(lab):
    """Hosts on the Internet: one that everybody has heard of, and many that nobody has."""
    hosts = [STRANGER, *(FRESH.format(n) for n in range(1, 5 * TARGETS))]
    lab.inet.batch("\n".join(f"addr add {a}/64 dev eth0 nodad" for a in hosts))
    yield lab.inet
    lab.inet.batch("\n".join(f"addr del {a}/64 dev eth0" for a in hosts))


def test_strangers_reach_silent_hosts_beside_a_scan_by_made_up_sources(gw, lab, silent, strangers, attack):
    """Who has a session gets through at once; who has none, with the second or third SYN."""
    first = 3 * TARGETS
    assert None not in opened(strangers, 6, [first], 0, STRANGER).values()
    result = {}
    with scan(lab, 6, attack, made_up=True) as scanner:
        time.sleep(1)
        known = [first + 1 + n for n in range(TARGETS // 2)]
        fresh = [first + 1 + TARGETS // 2 + n for n in range(TARGETS)]
        threads = [
            threading.Thread(target=lambda: result.update(opened(strangers, 6, known, SECONDS / 10, STRANGER))),
            threading.Thread(target=lambda: result.update(opened(strangers, 6, fresh, SECONDS / TARGETS, FRESH))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert scanner.sent > attack.rate * SECONDS / 2, "the scan itself was held up"
    times = [sorted(t for n in group if (t := result[n]) is not None) for group in (known, fresh)]
    for name, group, of in zip(("with a session", "without"), times, (known, fresh), strict=True):
        print(f"{name}: {len(group)} of {len(of)} within 3 s, the slowest after {max(group, default=0):.3f} s")
    assert len(times[0]) == len(known) and times[0][-1] < 1, times[0]
    assert len(times[1]) >= 0.95 * len(fresh), times[1]
    assert gw.drops().get(("1", "neighbor-rate-limit"), 0) > 0
    assert unresolved(lab) <= MOST_INCOMPLETE
