"""Random rules and packets: the gateway's verdicts equal nftables'.

The same frames go into two labs. In one the gateway filters by [[acl]], in the other the kernel
forwards and filters by the rules translated to nftables. What comes out at the far ends must be the
same packets.
"""

import ipaddress
import random
import struct
import time

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.lab import Gateway
from harness.wire import ICMP, IP, TCP, UDP, Ether, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, Raw, mark_of, marked

LAN_HOSTS = {4: [f"192.0.2.{n}" for n in (10, 20, 33, 60)], 6: [f"2001:db8:1::{n}" for n in ("10", "20", "33:1", "60")]}
WAN_HOSTS = {4: [f"203.0.113.{n}" for n in (10, 77, 130, 201)], 6: [f"2001:db8:203:{n}::1" for n in ("0", "77", "8000", "ff00")]}
POP_HOSTS = {4: [f"192.0.2.{n}" for n in (193, 200, 222, 250)], 6: [f"2001:db8:ee::{n}" for n in ("1", "200", "8000:1", "ff00:5")]}
PORTS = [1, 53, 80, 81, 443, 444, 1024, 5000, 5999, 65535]
PROTOCOLS = ["all", "tcp", "udp", "icmp", "gre", "esp", "132"]
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "gre": 47, "esp": 50, "132": 132}

# side: (namespace, its device, gateway's device)
SIDES = {"lan": ("lan1", "eth0", "lan-a"), "wan": ("wan", "gw", "wan"), "pop": ("pop", "gw", "express")}
HOSTS = {"lan": LAN_HOSTS, "wan": WAN_HOSTS, "pop": POP_HOSTS}
WAYS = [("lan", "wan"), ("wan", "lan"), ("lan", "pop"), ("pop", "lan")]

def cidr(rng, hosts, family):
    """A network that holds some of the hosts, from everything down to one."""
    width = 32 if family == 4 else 128
    length = rng.choice([0, 0, 24, 25, 26, 28, 32] if family == 4 else [0, 0, 32, 48, 64, 80, 112, 128])
    host = int(ipaddress.ip_address(rng.choice(hosts)))
    mask = ((1 << width) - 1) ^ ((1 << (width - length)) - 1)
    address = (ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address)(host & mask)
    return f"{address}/{length}"


def port_range(rng):
    if rng.random() < 0.4:
        return "-1/-1"
    low, high = sorted(rng.choices(PORTS, k=2))
    return f"{low}/{high}"


def random_rules(rng, count):
    out = []
    for number in range(count):
        family = rng.choice([4, 4, 6])
        kind, direction = rng.choice(["LAN", "WAN"]), rng.choice(["in", "out"])
        near, far = LAN_HOSTS[family], (WAN_HOSTS if kind == "WAN" else POP_HOSTS)[family]
        source, dest = (near, far) if direction == "out" else (far, near)
        protocol = rng.choice(PROTOCOLS if family == 4 else [p for p in PROTOCOLS if p != "icmp"])
        ported = protocol in ("tcp", "udp")
        out.append(
            {
                "id": f"r{number}",
                "direction": direction,
                "type": kind,
                "policy": rng.choice(["accept", "drop"]),
                "ip_protocol": protocol,
                "source_cidr": cidr(rng, source, family),
                "dest_cidr": cidr(rng, dest, family),
                "source_port_range": port_range(rng) if ported else "-1/-1",
                "dest_port_range": port_range(rng) if ported else "-1/-1",
                "priority": rng.randint(1, 12),
            }
        )
    return out


def nft_rules(rules, default, stateful):
    """The same in nftables: first match in order of priority, then of the file."""
    devices = {"LAN": "{ express }", "WAN": "{ wan }"}
    lines = []
    if stateful:
        lines.append("ct state established,related accept")
    lines.append('iifname { "lan-a", "lan-b" } oifname { "lan-a", "lan-b" } accept')
    for rule in sorted(rules, key=lambda r: r["priority"]):
        near, far = '{ "lan-a", "lan-b" }', devices[rule["type"]]
        inward, outward = (near, far) if rule["direction"] == "out" else (far, near)
        family = "ip6" if ":" in rule["source_cidr"] else "ip"
        parts = [f"iifname {inward} oifname {outward}", f"meta nfproto {'ipv6' if family == 'ip6' else 'ipv4'}"]
        for key, side in (("source_cidr", "saddr"), ("dest_cidr", "daddr")):
            if not rule[key].endswith("/0"):
                parts.append(f"{family} {side} {rule[key]}")
        if rule["ip_protocol"] != "all":
            icmp6 = family == "ip6" and rule["ip_protocol"] == "icmp"
            parts.append(f"meta l4proto {58 if icmp6 else NUMBERS[rule['ip_protocol']]}")
        for key, side in (("source_port_range", "sport"), ("dest_port_range", "dport")):
            if rule[key] != "-1/-1":
                parts.append(f"th {side} {rule[key].replace('/', '-')}")
        lines.append(" ".join([*parts, *nft_header(rule, family), rule["policy"]]))
    body = "\n        ".join(lines)
    return f"""
table inet acl
delete table inet acl
table inet acl {{
    chain forward {{
        type filter hook forward priority 0; policy {default};
        {body}
    }}
}}
"""


def nft_header(rule, family):
    """What a rule asks of the header, in numbers."""
    if "tcp_flags" in rule:
        wanted, mask = (sum(FLAGS[f] for f in flags.strip().split(",") if f != "none") for flags in rule["tcp_flags"].split("/"))
        yield f"tcp flags & {mask:#x} == {wanted:#x}"
    icmp = "icmp" if family == "ip" else "icmpv6"
    if "icmp_type" in rule:
        yield f"{icmp} type {rule['icmp_type']}"
    if "icmp_code" in rule:
        yield f"{icmp} code {rule['icmp_code']}"
    if "dscp" in rule:
        yield f"{family} dscp {rule['dscp']}"


FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
TESTS_OF_FLAGS = ["syn / syn,ack", "none / fin,syn,rst,ack", "fin,psh,urg / fin,syn,rst,psh,ack,urg", "ack / ack", "rst / rst"]
MESSAGES = {4: [(0, 0), (3, 1), (3, 3), (8, 0), (8, 7), (13, 0)], 6: [(1, 0), (1, 4), (128, 0), (128, 7), (129, 0), (150, 0)]}
MARKS = [0, 8, 46]


def rules_for_headers(rng, count):
    """Rules of which most ask something of the header."""
    for rule in random_rules(rng, count):
        family = 6 if ":" in rule["source_cidr"] else 4
        what = rng.choice(["flags", "message", "nothing"])
        if what != "nothing":
            rule["source_port_range"] = rule["dest_port_range"] = "-1/-1"
        if what == "flags":
            rule |= {"ip_protocol": "tcp", "tcp_flags": rng.choice(TESTS_OF_FLAGS)}
        elif what == "message":
            kind, code = rng.choice(MESSAGES[family])
            rule |= {"ip_protocol": "icmp", "icmp_type": kind} | ({"icmp_code": code} if rng.random() < 0.5 else {})
        if rng.random() < 0.4:
            rule["dscp"] = rng.choice(MARKS)
        yield rule


def packet_for_headers(rng, number):
    """A packet of a flow of its own, with any flags, message and mark; and its side and its destination's."""
    way, family = rng.choice(WAYS), rng.choice([4, 6])
    src, dst, mark = rng.choice(HOSTS[way[0]][family]), rng.choice(HOSTS[way[1]][family]), rng.choice(MARKS)
    tcp = rng.random() < 0.5
    proto = 6 if tcp else 1 if family == 4 else 58
    net = IP(src=src, dst=dst, proto=proto, tos=mark << 2) if family == 4 else IPv6(src=src, dst=dst, nh=proto, tc=mark << 2)
    if tcp:
        flags = rng.choice(["S", "SA", "A", "PA", "", "FPU", "FA", "R", "U"])
        l4 = TCP(sport=20000 + number, dport=rng.choice(PORTS), flags=flags, seq=1, ack=1)
    else:
        kind, code = rng.choice(MESSAGES[family])
        head = struct.pack("!BBHHH", kind, code, 0, 1000 + number, 1)
        l4 = Raw(with_icmp_sum(family, src, dst, head + marked(number)))
        return way[0], way[1], net / l4
    return way[0], way[1], net / l4 / Raw(marked(number))


def with_icmp_sum(family, src, dst, message):
    ends = b"".join(ipaddress.ip_address(a).packed for a in (src, dst))
    data = (ends + struct.pack("!II", len(message), 58) if family == 6 else b"") + message
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total >> 16) + (total & 0xFFFF)
    return message[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + message[4:]


class Flow:
    """A random packet, and the one that would answer it."""

    def __init__(self, rng):
        self.way = rng.choice(WAYS)
        self.family = rng.choice([4, 4, 6])
        self.src = rng.choice(HOSTS[self.way[0]][self.family])
        self.dst = rng.choice(HOSTS[self.way[1]][self.family])
        self.kind = rng.choice(["tcp", "tcp", "udp", "udp", "icmp", "gre", "esp", "132"])
        self.sport = rng.choice(PORTS) if rng.random() < 0.7 else rng.randint(1, 65535)
        self.dport = rng.choice(PORTS) if rng.random() < 0.7 else rng.randint(1, 65535)

    @property
    def tuple(self):
        return (self.family, self.src, self.dst, self.kind, self.sport, self.dport)

    def packet(self, mark, reply=False):
        src, dst, sport, dport = self.src, self.dst, self.sport, self.dport
        if reply:
            src, dst, sport, dport = dst, src, dport, sport
        body = Raw(marked(mark))
        number = NUMBERS[self.kind] if not (self.family == 6 and self.kind == "icmp") else 58
        net = IP(src=src, dst=dst, proto=number) if self.family == 4 else IPv6(src=src, dst=dst, nh=number)
        if self.kind == "tcp":
            l4 = TCP(sport=sport, dport=dport, flags="SA" if reply else "S", seq=1, ack=2 if reply else 0)
        elif self.kind == "udp":
            l4 = UDP(sport=sport, dport=dport)
        elif self.kind == "icmp" and self.family == 4:
            l4 = ICMP(type=0 if reply else 8, id=self.sport, seq=1)
        elif self.kind == "icmp":
            l4 = (ICMPv6EchoReply if reply else ICMPv6EchoRequest)(id=self.sport, seq=1)
        elif self.kind == "gre":
            l4 = Raw(b"\0\0\x88\xb5")  # GRE, version 0, of an experimental protocol
        else:
            l4 = Raw(b"\0\0\x10\x01\0\0\0\1")
        return net / l4 / body


class Bench:
    """One lab with its senders and sniffers; `send` returns the marks that came out."""

    def __init__(self, lab, wire):
        self.lab = lab
        self.senders = {s: wire.sender(getattr(lab, ns), dev) for s, (ns, dev, _) in SIDES.items()}
        self.sniffers = {s: wire.sniffer(getattr(lab, ns), dev) for s, (ns, dev, _) in SIDES.items()}
        self.heads = {
            s: Ether(src=getattr(lab, ns).mac(dev), dst=lab.gw.mac(gw_dev)) for s, (ns, dev, gw_dev) in SIDES.items()
        }

    def send(self, packets):
        """packets: [(side, destination side, packet)]; {destination side: marks seen there}."""
        for sniffer in self.sniffers.values():
            sniffer.drain(quiet=0.05)
        for number, (side, _, packet) in enumerate(packets):
            self.senders[side].send(self.heads[side] / packet)
            if number % 64 == 63:
                time.sleep(0.002)  # no ring in between should overflow
        return {
            side: {m for f in sniffer.drain(quiet=0.3) if (m := mark_of(f)) is not None}
            for side, sniffer in self.sniffers.items()
        }


def prepare(lab):
    """Far ends that listen only, and permanent neighbour entries."""
    lab.mute("lan1", "wan", "pop")
    lan1 = lab.lan1.mac("eth0")
    entries = [f"neigh replace {a} lladdr {lan1} dev lan-a nud permanent" for f in (4, 6) for a in LAN_HOSTS[f]]
    for family in (4, 6):
        entries.append(f"neigh replace {A.WAN_ROUTER[family]} lladdr {lab.wan.mac('gw')} dev wan nud permanent")
        entries.append(f"neigh replace {A.POP_LINK[family]} lladdr {lab.pop.mac('gw')} dev express nud permanent")
    lab.gw.batch("\n".join(entries) + "\n")


@pytest.fixture(scope="module")
def kernel_lab(second_lab):
    kernel = Gateway(second_lab, "kernel")
    kernel.start()
    second_lab.gw.run(["sysctl", "-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=1"], check=False)
    prepare(second_lab)
    return second_lab


@pytest.fixture(scope="module")
def prepared(lab):
    prepare(lab)
    return lab


@pytest.mark.sag
@pytest.mark.parametrize("round_", range(4))
@pytest.mark.parametrize("default", ["accept", "drop"])
def test_stateless_verdicts(gw_with, prepared, kernel_lab, wire, seed, round_, default):
    rng = random.Random(f"{seed}-{round_}-{default}")
    rules = random_rules(rng, rng.choice([5, 30, 120]))
    gw_with(lab_config(acl=rules, acl_default=default, acl_stateful=False, acl_reject=False))
    kernel_lab.gw.run(["nft", "-f", "-"], input=nft_rules(rules, default, stateful=False))
    flows = {f.tuple: f for f in (Flow(rng) for _ in range(400))}.values()
    packets = [(f.way[0], f.way[1], f.packet(n)) for n, f in enumerate(flows)]
    compare(packets, Bench(prepared, wire).send(packets), Bench(kernel_lab, wire).send(packets), rules, seed)


@pytest.mark.sag
@pytest.mark.parametrize("default", ["accept", "drop"])
def test_verdicts_by_header(gw_with, prepared, kernel_lab, wire, seed, default):
    """TCP flags, ICMP messages and DSCP, over both IP versions."""
    rng = random.Random(f"{seed}-{default}-headers")
    rules = list(rules_for_headers(rng, 60))
    gw_with(lab_config(acl=rules, acl_default=default, acl_stateful=False, acl_reject=False))
    kernel_lab.gw.run(["nft", "-f", "-"], input=nft_rules(rules, default, stateful=False))
    packets = [packet_for_headers(rng, n) for n in range(500)]
    compare(packets, Bench(prepared, wire).send(packets), Bench(kernel_lab, wire).send(packets), rules, seed)


@pytest.mark.sag
@pytest.mark.parametrize("round_", range(3))
def test_stateful_verdicts(gw_with, prepared, kernel_lab, wire, seed, round_):
    """Openers first, then the answer of each: accepted sessions pass in both directions, others are evaluated."""
    rng = random.Random(f"{seed}-{round_}-stateful")
    rules = random_rules(rng, 40)
    gw_with(lab_config(acl=rules, acl_default=rng.choice(["accept", "drop"]), acl_stateful=True, acl_reject=False))
    config = prepared.conf.read_text()
    default = "drop" if 'acl_default = "drop"' in config else "accept"
    kernel_lab.gw.run(["nft", "-f", "-"], input=nft_rules(rules, default, stateful=True))
    # Ports of each round are its own: neither side remembers a session of the round before.
    flows, seen = [], set()
    for number in range(300):
        flow = Flow(rng)
        if flow.kind not in ("tcp", "udp", "icmp"):
            continue
        if flow.kind == "icmp":
            flow.sport = 1 + round_ * 400 + number
        elif rng.random() < 0.5:
            flow.sport = 10000 + round_ * 400 + number
        else:
            flow.dport = 10000 + round_ * 400 + number
        if flow.tuple not in seen:
            seen.add(flow.tuple)
            flows.append(flow)
    openers = [(f.way[0], f.way[1], f.packet(n)) for n, f in enumerate(flows)]
    answers = [(f.way[1], f.way[0], f.packet(1000 + n, reply=True)) for n, f in enumerate(flows)]
    ours, theirs = Bench(prepared, wire), Bench(kernel_lab, wire)
    compare(openers, ours.send(openers), theirs.send(openers), rules, seed)
    compare(answers, ours.send(answers), theirs.send(answers), rules, seed)


def compare(packets, ours, theirs, rules, seed):
    wrong = []
    for number, (_, to, packet) in enumerate(packets):
        mark = mark_of(bytes(packet))
        for side in SIDES:
            mine, kernels = mark in ours[side], mark in theirs[side]
            if mine != kernels or (mine and side != to):
                wrong.append(f"packet {number} at {side}: gateway {mine}, nftables {kernels}: {packet.summary()}")
    passed = sum(map(len, theirs.values()))
    print(f"{len(packets)} packets, {passed} passed, {len(rules)} rules, seed {seed}")
    assert not wrong, f"--seed {seed}: {len(wrong)} verdicts differ\n" + "\n".join(wrong[:20])


def as_written(flow, rules, default):
    """The verdict by reading the rules one after the other."""
    kind = "LAN" if "pop" in flow.way else "WAN"
    direction = "out" if flow.way[0] == "lan" else "in"
    number = 58 if flow.family == 6 and flow.kind == "icmp" else NUMBERS[flow.kind]
    for rule in sorted(rules, key=lambda r: r["priority"]):
        nets = [ipaddress.ip_network(rule[k]) for k in ("source_cidr", "dest_cidr")]
        ranges = [tuple(map(int, rule[k].split("/"))) for k in ("source_port_range", "dest_port_range")]
        if (
            (rule["type"], rule["direction"]) == (kind, direction)
            and all(ipaddress.ip_address(a) in n for a, n in zip((flow.src, flow.dst), nets))
            and (rule["ip_protocol"] == "all" or NUMBERS[rule["ip_protocol"]] == number)
            and all(r == (-1, -1) or r[0] <= p <= r[1] for p, r in zip((flow.sport, flow.dport), ranges))
        ):
            return rule["policy"]
    return default


@pytest.mark.parametrize("default", ["accept", "drop"])
def test_the_oracle_reads_the_rules_as_written(kernel_lab, wire, seed, default):
    """nftables with the translated rules decides as a plain reading of the rules does."""
    rng = random.Random(f"{seed}-{default}-oracle")
    rules = random_rules(rng, 60)
    kernel_lab.gw.run(["nft", "-f", "-"], input=nft_rules(rules, default, stateful=False))
    flows = list({f.tuple: f for f in (Flow(rng) for _ in range(400))}.values())
    came = Bench(kernel_lab, wire).send([(f.way[0], f.way[1], f.packet(n)) for n, f in enumerate(flows)])
    verdicts = [as_written(f, rules, default) == "accept" for f in flows]
    assert True in verdicts and False in verdicts
    wrong = [(f.way, f.tuple) for n, f in enumerate(flows) if (n in came[f.way[1]]) != verdicts[n]]
    assert not wrong, f"--seed {seed}: {wrong[:10]}"
