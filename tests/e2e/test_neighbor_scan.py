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

from harness.wire import IP, UDP, Ether, IPv6, Raw, marked

pytestmark = [pytest.mark.sag, pytest.mark.alone]

RATE = 4000  # scanned addresses a second, below the rate of the flood guard
SECONDS = 6
TARGETS = 20
PORT = 7000
# Unresolved entries that the gateway may have the kernel hold (both ports of a family), and a few of the hosts' own.
MOST_INCOMPLETE = 256 + 16

VICTIM = {4: "192.0.2.11", 6: "2001:db8:2::11"}
SILENT = {4: "10.77.200.{}", 6: "2001:db8:1::200:{}"}


@pytest.fixture(scope="module")
def silent(lab):
    """Hosts that have never said anything: a /16 behind port 3 (IPv4), and in the /64 of port 0 (IPv6)."""
    lab.gw.ip("addr add 10.77.0.1/16 dev lan-b")
    lab.lan1.ip(f"addr add {VICTIM[4]}/26 dev eth0")
    lab.lan2.ip(f"addr add {VICTIM[6]}/64 dev eth0 nodad")
    numbers = range(1, 3 * TARGETS)
    lab.lan2.batch("\n".join(f"addr add {SILENT[4].format(n)}/32 dev eth0" for n in numbers))
    lab.lan1.batch("\n".join(f"addr add {SILENT[6].format(n)}/64 dev eth0 nodad" for n in numbers))
    lab.lan1.run(["sysctl", "-qw", "net.ipv6.conf.eth0.max_addresses=1000"], check=False)
    with contextlib.ExitStack() as listeners:
        for ns, family in ((lab.lan2, socket.AF_INET), (lab.lan1, socket.AF_INET6)):
            sock = listeners.enter_context(ns.socket(family, socket.SOCK_STREAM))
            sock.bind(("", PORT))
            sock.listen(512)
        yield


@contextlib.contextmanager
def scan(lab, wire, family):
    """One host of the LAN scans the /16, somebody on the Internet scans the LAN's /64. Yields how many were asked."""
    if family == 4:
        head = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
        packet = head / IP(src="192.0.2.10", dst="10.77.0.0") / UDP(sport=9, dport=9) / Raw(marked(0))
        sender, end = wire.sender(lab.lan1, "eth0"), 14 + 20
    else:
        head = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
        packet = head / IPv6(src="2001:db8:203::99", dst="2001:db8:1::") / UDP(sport=9, dport=9) / Raw(marked(0))
        sender, end = wire.sender(lab.wan, "gw"), 14 + 40
    template, l4 = bytearray(bytes(packet)), end
    asked, stop = [0], threading.Event()

    def run():
        n, begun = 0, time.monotonic()
        while not stop.is_set():
            due = int((time.monotonic() - begun) * RATE)
            while n < due:
                n += 1
                # 10.77.1.0 to 10.77.159.255; for IPv6, 40,000 of the /64.
                number = 256 + n % 40_000
                if family == 4:
                    template[end - 2 : end] = number.to_bytes(2, "big")
                    template[24:26] = b"\0\0"
                    total = sum(int.from_bytes(template[i : i + 2], "big") for i in range(14, 34, 2))
                    while total >> 16:
                        total = (total & 0xFFFF) + (total >> 16)
                    template[24:26] = (~total & 0xFFFF).to_bytes(2, "big")
                    template[l4 + 6 : l4 + 8] = b"\0\0"
                else:
                    template[end - 4 : end] = (0x0F000000 + number).to_bytes(4, "big")
                sender.send(template)
            asked[0] = n
            time.sleep(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield asked
    finally:
        stop.set()
        thread.join()


def connect(ns, family, target):
    """A connection that has begun."""
    sock = ns.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.bind((VICTIM[family], 0))
    assert sock.connect_ex((target, PORT)) in (0, errno.EINPROGRESS)
    return sock


def opened(ns, family, numbers, every):
    """Which of the connections to these silent hosts, begun one after the other, opened within three seconds."""
    result = {}

    def one(number):
        begun = time.monotonic()
        with connect(ns, family, SILENT[family].format(number)) as sock:
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
def test_others_find_their_next_hops_during_a_scan_and_after_it(gw, lab, wire, silent, family):
    victim = {4: lab.lan1, 6: lab.lan2}
    numbers = iter(range(1, 3 * TARGETS))
    take = lambda count: [next(numbers) for _ in range(count)]
    # Both victims are known neighbors, as hosts are that speak to the gateway.
    for f in (4, 6):
        gateway = {4: "192.0.2.1", 6: "2001:db8:2::1"}[f]
        assert victim[f].ping(gateway, count=2, options=["-I", VICTIM[f]]) == 2
    epoch, lines = gw.status()["config_epoch"], len(lab.log.read_text().splitlines())
    most, slowest = 0, 0.0
    with scan(lab, wire, family) as asked:
        time.sleep(1)
        begun = time.monotonic()
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
        print(f"{asked[0]} addresses scanned in {time.monotonic() - begun + 1:.1f} s")
    up = [t for t in during.values() if t is not None]
    print(f"{len(up)} of {len(during)} connections within 3 s, the slowest after {max(up, default=0):.3f} s")
    print(f"at most {most} unresolved entries; status answers within {slowest:.3f} s")
    assert asked[0] > RATE * SECONDS / 2, "the scan itself was held up"
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
