"""One host fills the session table: others open connections meanwhile and afterwards, and those that they have stay."""

import re
import signal
import time
from pathlib import Path

import pytest

from harness.config import lab_config
from harness.flood import Clients, Flood, Server
from harness.lab import Addresses as A
from harness.waiting import within

pytestmark = pytest.mark.sag

PORT = 7090


@pytest.fixture(scope="module")
def server(lab):
    """On the Internet; every other port there answers with RST."""
    it = Server(lab.inet, PORT)
    yield it
    it.close()


@pytest.fixture
def silent(lab):
    """The provider's router lets only connections to the server pass, so that nobody answers the flood."""
    rules = f"""
        table inet silent {{
            chain forward {{
                type filter hook forward priority 0;
                tcp dport {PORT} accept; tcp sport {PORT} accept; meta l4proto {{ tcp, udp }} drop;
            }}
        }}
    """
    lab.wan.run(["nft", "-f", "-"], input=rules)
    yield
    lab.wan.run(["nft", "delete", "table", "inet", "silent"])


def flood(lab, family, kind, rate, seconds):
    macs = lab.gw.mac("lan-a"), lab.lan1.mac("eth0")
    return Flood(lab.lan1, "eth0", macs, (A.LAN1[family], A.INET[family]), kind, rate, seconds)


def table(gw, family):
    s = gw.status()["sessions"]
    return s[f"ipv{family}"], s[f"capacity_ipv{family}"]


def states(gw, family):
    """States of the TCP sessions, in order."""
    rows = gw.ctl("sessions", "--limit", "5000")["sessions"]
    return sorted(s["state"] for s in rows if s["proto"] == "tcp" and s["family"] == family)


def memory(gw):
    """Mebibytes of the daemon that are its own and in use."""
    return round(int(re.search(r"(?m)^RssAnon:\s+(\d+)", Path(f"/proc/{gw.pid()}/status").read_text())[1]) / 1024, 1)


def check_others(gw, lab, family, kind, rate, seconds):
    gw.ctl("sessions", "flush", "--all")
    others = Clients(lab.lan2, family, A.INET[family], PORT)
    sizes = [memory(gw)]
    with others.connected(20) as before:
        with flood(lab, family, kind, rate, seconds) as attack:
            done, tried = others.connect_while(attack.running)
        end = time.monotonic()
        used, capacity = table(gw, family)
        sizes.append(memory(gw))
        print(f"{kind} over IPv{family}: {attack.sent} packets in {seconds} s, {done} of {tried} connections of others,")
        print(f"table {used} of {capacity}, {gw.status()['sessions']}")
        assert attack.sent > rate * seconds / 2
        assert tried > 10 and done * 100 >= tried * 95, f"{done} of {tried} during the flood"
        assert all(others.alive(sock) for sock in before), "established connections stay"
        others.connect_while(lambda: time.monotonic() < end + 5)
        recovered = max([at - end for at in others.failed] + [0.0])
        begun = time.monotonic()
        done, tried = others.connect_while(lambda: time.monotonic() < begun + 1)
        sizes.append(memory(gw))
        print(f"the last failure {recovered:.1f} s after the end; then {done} of {tried}; MiB before, at the end, then: {sizes}")
        assert done == tried, f"{done} of {tried} afterwards"
    return used, capacity


def test_scan_that_is_refused(gw_with, lab, server, family, attack):
    """SYNs answered with RST: the log names the host before the table is full."""
    gw = gw_with(lab_config(extra="\n[timeouts]\ntcp_refused = 10\n", **attack.table))
    used, capacity = check_others(gw, lab, family, "syn", attack.rate, attack.seconds)
    assert used <= capacity * 0.97
    if not attack.fills(capacity):
        return
    heaviest = [h for h in gw.status()["sessions"]["heaviest"] if h["family"] == family]
    host = A.LAN1[4] + "/32" if family == 4 else "2001:db8:1::/64"
    assert [h["host"] for h in heaviest] == [host]
    filling = [line for line in gw.lab.log.read_text().splitlines() if "session-table-filling" in line]
    assert any(host in line for line in filling), filling
    # Refused connections last ten seconds here.
    within(14, "the scan's sessions end", lambda: table(gw, family)[0] < capacity / 4)


@pytest.mark.parametrize(
    ("family", "kind"), [(4, "syn"), (6, "syn"), (4, "ack"), (6, "fin"), (4, "udp")], indirect=["family"]
)
def test_flood_that_nobody_answers(gw_with, lab, server, silent, family, attack, kind):
    gw = gw_with(lab_config(**attack.table))
    used, capacity = check_others(gw, lab, family, kind, attack.rate, attack.seconds)
    # A quarter of the table is one host's unanswered sessions, twice that its /64's.
    assert used <= capacity * 0.6


def test_flood_in_the_name_of_many(gw_with, lab, server, silent, attack):
    """One host sends by fifty addresses of its network, which have a share each: the table fills, and what makes room for others
    rests for its grace period meanwhile."""
    gw = gw_with(lab_config(flows=attack.flows or 1 << 18))
    check_others(gw, lab, 4, "udp-spoofed", attack.rate, attack.seconds)
    assert gw.status()["sessions"]["evicted"] > 0
    assert not any(reason == "session-table-full" for (_, reason), n in gw.drops().items() if n)


def test_trickle_of_lone_segments(gw_with, lab, server, silent, family):
    """What kept a table full for two hours: 141 bare ACKs a second."""
    gw = gw_with(lab_config(flows=1024, extra="\n[timeouts]\ntcp_syn = 5\n"))
    check_others(gw, lab, family, "ack", rate=141, seconds=12)
    within(15, "lone segments end soon", lambda: "picked-up" not in states(gw, family))


def test_restart_keeps_half_open_sessions_half_open(gw_with, accounting, lab, server, silent, family, attack):
    gw = gw_with(lab_config(**attack.table))
    gw.ctl("sessions", "flush", "--all")
    others = Clients(lab.lan2, family, A.INET[family], PORT)

    with others.connected(3) as before:
        for kind in ("syn", "ack", "fin"):
            with flood(lab, family, kind, rate=5, seconds=1):
                pass
        was = states(gw, family)
        assert was.count("established") == 3 and {"syn", "picked-up"} <= set(was)
        for sock in before[:1]:
            sock.shutdown(1)
        within(2, "one closes", lambda: states(gw, family).count("established") == 2)
        was = states(gw, family)
        gw.kill(signal.SIGKILL)
        gw.start(lab_config(**attack.table))
        accounting.open()
        assert states(gw, family) == was
        assert all(others.alive(sock) for sock in before[1:])
