"""sag-vcpe replay and check: no privilege, no kernel, exact bytes and reasons."""

import json
import os
from pathlib import Path

import pytest

from harness.net import run
from harness.wire import ICMP, IP, TCP, UDP, Dot1Q, Ether, ICMPv6TimeExceeded, IPv6, Raw, fragment, rdpcap, wrpcap

ROOT = Path(__file__).parents[2]
VCPE = Path(os.environ.get("SAG_VCPE_BIN", ROOT / "target/release/sag-vcpe"))

CONFIG = """
[dataplane]
flows = 1024

[[port]]
name = "lan"
device = "none0"
role = "lan"
mac = "02:00:00:00:aa:01"
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]

[[port]]
name = "wan"
device = "none1"
role = "wan"
mac = "02:00:00:00:aa:02"
addresses = ["198.51.100.2/24", "2001:db8:2::2/64"]
mtu = 1400

[[neighbor]]
port = "wan"
address = "198.51.100.1"
mac = "02:00:00:00:bb:01"

[[route]]
destination = "0.0.0.0/0"
next_hop = "198.51.100.1"

[[route]]
destination = "::/0"
next_hop = "2001:db8:2::1"

[[route]]
destination = "203.0.113.66/32"
type = "prohibit"

[[acl]]
id = "acl-1"
[[acl.rule]]
id = "no-telnet"
direction = "out"
type = "WAN"
policy = "drop"
ip_protocol = "tcp"
source_cidr = "192.0.2.0/24"
dest_cidr = "0.0.0.0/0"
source_port_range = "-1/-1"
dest_port_range = "23/23"
priority = 1
"""

HOST = Ether(src="02:00:00:00:cc:01", dst="02:00:00:00:aa:01")
V4 = IP(src="192.0.2.10", dst="203.0.113.5", ttl=9)
V6 = IPv6(src="2001:db8:1::10", dst="2001:db8:9::5", hlim=9)


@pytest.fixture
def replay(tmp_path):
    """Runs frames through; returns verdicts and what left by each port."""
    if not VCPE.exists():
        pytest.fail(f"{VCPE} is not built (cargo build --release)")

    def go(*frames, port="lan", config=CONFIG, ok=True):
        (tmp_path / "vcpe.toml").write_text(config)
        wrpcap(str(tmp_path / "in.pcap"), list(frames))
        out = tmp_path / "out"
        done = run([VCPE, "replay", "--config", tmp_path / "vcpe.toml", "--in", tmp_path / "in.pcap", "--port", port, "--out", out], check=ok)
        if not ok:
            return done
        verdicts = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
        assert len(verdicts) == len(frames)
        return verdicts, {name: list(rdpcap(str(out / f"{name}.pcap"))) for name in ("lan", "wan")}

    return go


def full(p):
    """The frame with all checksums recomputed."""
    p = p.copy()
    for layer in (IP, TCP, UDP, ICMP):
        if layer in p:
            p[layer].chksum = None
    return p


def test_a_forwarded_packet_is_the_same_but_for_ttl_and_link_header(replay):
    sent = HOST / V4 / UDP(sport=1, dport=2) / Raw(b"x" * 40)
    (v,), out = replay(sent)
    assert v["verdict"] == "forward" and v["out_port"] == "wan" and v["packet"] == 1
    expected = Ether(src="02:00:00:00:aa:02", dst="02:00:00:00:bb:01") / sent[IP].copy()
    expected[IP].ttl = 8
    assert bytes(out["wan"][0]) == bytes(full(expected)) and not out["lan"]


def test_an_unknown_neighbour_gets_an_address_made_from_its_own(replay):
    (v,), out = replay(HOST / V6 / UDP(sport=1, dport=2) / Raw(b"x"))
    assert v["verdict"] == "forward"
    assert out["wan"][0].dst == "02:00:00:00:00:01" and out["wan"][0][IPv6].hlim == 8


def test_verdicts_name_their_reason(replay):
    bad_sum = HOST / V4 / UDP()
    bad_sum[IP].chksum = 1
    cases = [
        (HOST / V4 / TCP(dport=23, flags="S"), "acl-denied"),
        (HOST / V4 / TCP(dport=24, flags="S"), None),
        (bad_sum, "ip4-bad-checksum"),
        (HOST / IP(src="192.0.2.10", dst="203.0.113.66") / UDP(), "route-prohibit"),
        (HOST / IP(src="127.0.0.1", dst="203.0.113.5") / UDP(), "source-martian"),
        (HOST / IP(src="192.0.2.10", dst="203.0.113.5", ttl=1) / UDP(), "ttl-expired"),
        (HOST / Dot1Q(vlan=5) / V4 / UDP(), "vlan-unknown"),
        (HOST / V4 / UDP(sport=5, dport=5) / Raw(b"x" * 1400), "mtu-exceeded"),
    ]
    cases[-1][0][IP].flags = "DF"
    verdicts, _ = replay(*[c[0] for c in cases])
    assert [v.get("reason") for v in verdicts] == [c[1] for c in cases]


def test_icmp_errors_go_back_with_the_right_content(replay):
    too_big = HOST / V4 / UDP(sport=5, dport=5) / Raw(b"x" * 1400)
    too_big[IP].flags = "DF"
    late = HOST / IPv6(src="2001:db8:1::10", dst="2001:db8:9::5", hlim=1) / UDP() / Raw(b"y")
    (a, b), out = replay(too_big, late)
    assert a["originated"][0][0] == "lan" and b["originated"][0][0] == "lan"
    first, second = out["lan"]
    assert (first[IP].src, first[IP].dst, first[ICMP].type, first[ICMP].code) == ("192.0.2.1", "192.0.2.10", 3, 4)
    assert first[ICMP].nexthopmtu == 1400 and bytes(first) == bytes(full(first))
    assert bytes(first[ICMP].payload) == bytes(too_big[IP])[: 576 - 28]
    assert second[ICMPv6TimeExceeded].code == 0 and second[IPv6].src == "2001:db8:1::1"


def test_a_packet_without_df_is_fragmented_to_the_egress_mtu(replay):
    sent = HOST / V4 / UDP(sport=5, dport=5, chksum=0) / Raw(bytes(range(256)) * 5 + b"z" * 200)
    (v,), out = replay(sent)
    assert v["verdict"] == "forward"
    assert [len(p[IP]) <= 1400 for p in out["wan"]] == [True] * len(out["wan"]) and len(out["wan"]) == 2
    data = b"".join(bytes(p[IP].payload) for p in out["wan"])
    assert data == bytes(sent[IP].payload)
    assert out["wan"][0][IP].flags == "MF" and out["wan"][1][IP].frag * 8 == len(out["wan"][0][IP].payload)
    for piece in out["wan"]:
        again = piece.copy()
        again[IP].chksum = None
        assert bytes(again) == bytes(piece)


def test_later_fragments_follow_the_first(replay):
    pieces = fragment(HOST / V4 / UDP(sport=7, dport=7) / Raw(b"q" * 3000), fragsize=1000)
    assert len(pieces) == 4
    verdicts, out = replay(*pieces)
    assert {v["verdict"] for v in verdicts} == {"forward"} and len(out["wan"]) == 4
    for order in ([3, 0, 2, 1], [1, 2, 3, 0]):
        _, out = replay(*[pieces[i] for i in order])
        assert sorted(p[IP].frag for p in out["wan"]) == sorted(p[IP].frag for p in pieces)
    verdicts, out = replay(*pieces[1:])
    assert {v["verdict"] for v in verdicts} == {"held"} and not out["wan"], "they wait for their first"


def test_mistakes_are_named(replay, tmp_path):
    frame = HOST / V4 / UDP()
    assert "no port named" in replay(frame, port="dmz", ok=False).stderr
    assert "vcpe.toml:" in replay(frame, config=CONFIG + "bogus = 1\n", ok=False).stderr
    (tmp_path / "noise").write_bytes(b"not a capture at all")
    done = run([VCPE, "replay", "--config", tmp_path / "vcpe.toml", "--in", tmp_path / "noise", "--port", "lan", "--out", tmp_path], check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "panicked" not in done.stderr


def test_check_warns_with_a_witness(tmp_path):
    config = tmp_path / "vcpe.toml"
    rule = CONFIG[CONFIG.index("[[acl.rule]]"):]
    config.write_text(CONFIG + rule.replace("no-telnet", "dead").replace('"drop"', '"accept"').replace("priority = 1", "priority = 2"))
    done = run([VCPE, "check", "--config", config])
    assert "rule dead" in done.stderr and "no-telnet" in done.stderr and ":23" in done.stderr


def test_a_hundred_thousand_rules_are_valid(tmp_path):
    config = tmp_path / "big.toml"
    rules = "".join(
        f'[[acl.rule]]\nid = "r{i}"\ndirection = "out"\ntype = "WAN"\npolicy = "drop"\nip_protocol = "udp"\n'
        f'source_cidr = "10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}/32"\ndest_cidr = "0.0.0.0/0"\n'
        f'source_port_range = "-1/-1"\ndest_port_range = "{i % 60000 + 1}/{i % 60000 + 9}"\npriority = {i % 100 + 1}\n'
        for i in range(100_000)
    )
    config.write_text(CONFIG + rules)
    done = run([VCPE, "check", "--config", config], timeout=120)
    assert "100001 rules" in done.stdout
