"""DSCP: which mark a session is classified by, and the marks that leave by XDP and by the workers."""

import socket
import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.wire import IP, Ether, IPv6, mark_of, marked

pytestmark = pytest.mark.sag

EF, AF11, AF41, CS5 = 46, 10, 34, 40


def car(name, priority, extra=""):
    return (
        f'[[qos.car]]\nid = "{name}"\npriority = {priority}\nlimit_type = "Absolute"\n'
        f"min_bandwidth_abs = 0\nmax_bandwidth_abs = 100\n{extra}\n"
    )


def policy(priority, family, extra=""):
    source, dest = ("192.0.2.0/24", "0.0.0.0/0") if family == 4 else ("2001:db8:1::/64", "::/0")
    return (
        f'[[qos.policy]]\npriority = {priority}\nsource_cidr = "{source}"\ndest_cidr = "{dest}"\n'
        f'ip_protocol = "all"\n{extra}\n'
    )


def text(family, fast_path=True):
    """EF goes to `voice`, which re-marks; AF41 to `video`, which does not; the rest to `rest`, which bleaches."""
    return lab_config(
        extra='\n[[qos]]\nid = "qos-1"\n'
        + car("voice", 1, "remark_dscp = 10")
        + car("video", 2)
        + car("rest", 3, 'remark_dscp = "CS0"')
        + policy(1, family, 'dscp = "EF"')
        + policy(2, family, "dscp = 34")
        + policy(3, family),
        fast_path=fast_path,
    )


class Flow:
    """UDP packets of one session, with any marks."""

    def __init__(self, ns, family, port):
        # Not connected, so that an ICMP port unreachable is no error.
        self.family, self.to = family, (A.INET[family], port)
        self.sock = ns.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)

    def send(self, number, dscp, ecn=0):
        tos = dscp << 2 | ecn
        if self.family == 4:
            self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        else:
            self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)
        self.sock.sendto(marked(number), self.to)

    def close(self):
        self.sock.close()


@pytest.fixture
def flow(lab, family):
    made = []

    def make(port):
        made.append(Flow(lab.lan1, family, port))
        return made[-1]

    yield make
    for one in made:
        one.close()


def classes(frames, family):
    """{number of the packet: (DSCP, ECN)} as they arrived, the IPv4 header checksum being right."""
    out = {}
    for frame in frames:
        if (number := mark_of(frame)) is None:
            continue
        packet = Ether(frame)
        if family == 4:
            ip = packet[IP]
            was, ip.chksum = ip.chksum, None
            assert IP(bytes(ip)).chksum == was, "IPv4 header checksum"
            octet = ip.tos
        else:
            octet = packet[IPv6].tc
        out[number] = (octet >> 2, octet & 3)
    return out


def cars(gw):
    return {c["id"]: c["up"]["passed_bytes"] for c in gw.ctl("qos")["cars"]}


@pytest.mark.parametrize("fast_path", [True, False], ids=["xdp", "worker"])
def test_marks_on_the_wire(gw_with, lab, wire, flow, family, fast_path):
    gw = gw_with(text(family, fast_path))
    lab.lan1.ping(A.INET[family], count=2)
    sniffer = wire.sniffer(lab.inet, "eth0")
    before, fast = cars(gw), gw.status()["fastpath_packets"]
    sent = {"voice": (EF, AF11), "video": (AF41, AF41), "rest": (CS5, 0)}
    want, number = {}, 0
    for port, (dscp, leaves) in enumerate(sent.values(), 7001):
        one = flow(port)
        # The first packet goes by a worker in any case, and all ECN codepoints are preserved.
        for ecn in (0, 0, 1, 2, 3):
            one.send(number, dscp, ecn)
            want[number] = (leaves, ecn)
            number += 1
            time.sleep(0.02)
    got = classes(sniffer.drain(), family)
    assert got == want
    after = cars(gw)
    for name in sent:
        size = (28 if family == 4 else 48) + len(marked(0))
        assert after[name] - before[name] >= 5 * size, name
    assert (gw.status()["fastpath_packets"] - fast >= 9) == fast_path


def test_a_session_is_classified_by_its_first_packet(gw_with, lab, wire, flow, family):
    gw = gw_with(text(family))
    lab.lan1.ping(A.INET[family], count=2)
    sniffer = wire.sniffer(lab.inet, "eth0")
    one = flow(7101)
    for number, dscp in enumerate((EF, 0, AF41)):
        one.send(number, dscp)
        time.sleep(0.02)
    assert {c for c, _ in classes(sniffer.drain(), family).values()} == {AF11}
    # At a new epoch the next packet classifies the flow again.
    gw.reload(text(family) + "\n[timeouts]\nudp = 299\n")
    for number, dscp in enumerate((AF41, EF)):
        one.send(number, dscp)
        time.sleep(0.02)
    assert classes(sniffer.drain(), family) == {0: (AF41, 0), 1: (EF, 0)}


def test_the_tools_show_the_marks(gw_with, lab, family):
    gw = gw_with(text(family))
    answer = gw.ctl("qos")
    assert [c["remark_dscp"] for c in answer["cars"]] == [10, None, 0]
    assert [p["dscp"] for p in answer["policies"]] == [46, 34, None]
    ask = ["explain", "--port", "0", "--proto", "udp", "--src", A.LAN1[family], "--dst", A.INET[family]]
    ask += ["--sport", "1", "--dport", "2"]
    lab.lan1.ping(A.INET[family], count=2)
    detail = lambda *more: next(s["detail"] for s in gw.ctl(*ask, *more)["stages"] if s["stage"] == "qos")
    assert detail("--dscp", "EF") == "metered by voice, marked AF11"
    assert detail("--dscp", "34") == "metered by video"
    assert detail() == "metered by rest, marked CS0"
