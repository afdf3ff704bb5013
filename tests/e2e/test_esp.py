"""ESP tunnels against scapy, tshark and a second gateway: keys, replays, NAT, rekeying, failover, and paths
that carry less than they say."""

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
from scapy.layers.ipsec import ESP, SecurityAssociation

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.net import run
from harness.traffic import iperf
from harness.tunnels import (
    BRANCH_NET,
    FAR,
    LOCAL,
    REMOTE,
    SPI_IN,
    SPI_OUT,
    esp_keys,
    gateway_config,
    hop,
    route,
    sweep,
    tunnel,
    tunnels,
    turned,
    wait_for,
)
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked, wrpcap

pytestmark = pytest.mark.sag
# Gateways probe each other all the time: no two reads of counters are of one moment.
BUSY = pytest.mark.no_accounting

CIPHERS = {
    "aes-128-gcm": ("aes-gcm", "AES-GCM", 20),
    "aes-256-gcm": ("aes-gcm", "AES-GCM", 36),
    "chacha20-poly1305": ("chacha20-poly1305", "CHACHA20-POLY1305", 36),
}
# Drop reasons of packets that it does not accept.
REASONS = ("esp-bad-icv", "esp-replay", "esp-unknown-spi", "esp-truncated", "esp-bad-next-header", "esp-dummy")


def esp_dropped(gw):
    out = dict.fromkeys(REASONS, 0)
    for (_, reason), packets in gw.drops().items():
        if reason in out:
            out[reason] += packets
    return out


# --- scapy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("udp", [False, True], ids=["plain", "udp"])
@pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
@pytest.mark.parametrize("name", CIPHERS)
def test_scapy_is_the_far_end(gw_with, lab, wire, name, outer, udp):
    """scapy decrypts what the gateway sends, the gateway accepts what scapy sends, and faulty packets are dropped with a reason."""
    cipher, algorithm, length = CIPHERS[name]
    keys = esp_keys(length)
    esn = outer == 4
    gw = gw_with(
        gateway_config("esp", outer, **keys, cipher=cipher, esn=esn, udp_encap=udp, probe_interval=0)
    )
    lab.mute("inet")
    make = {4: IP, 6: IPv6}[outer]

    def association(spi, key, src, dst):
        nat = {"nat_t_header": UDP(sport=4500, dport=4500)} if udp else {}
        return SecurityAssociation(
            ESP, spi=spi, crypt_algo=algorithm, crypt_key=bytes.fromhex(key),
            tunnel_header=make(src=src, dst=dst), esn_en=esn, **nat,
        )

    theirs = association(SPI_OUT, keys["key_out"], LOCAL[outer], REMOTE[outer])
    ours = association(SPI_IN, keys["key_in"], REMOTE[outer], LOCAL[outer])
    far_wire, near = wire.sniffer(lab.inet, "eth0"), wire.sniffer(lab.lan1, "eth0")
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    for n, size in enumerate((1, 2, 3, 500, 1300)):
        inner = IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1111, dport=2222) / Raw(marked(n) + b"x" * size)
        wire.sender(lab.lan1, "eth0").send(link / inner)
        out = far_wire.until(lambda p: ESP in p or (UDP in p and p[UDP].dport == 4500))
        assert out is not None, f"packet {n} did not come out\n{gw.tail()}"
        packet = out[make]
        assert (packet.src, packet.dst) == (LOCAL[outer], REMOTE[outer])
        assert mark_of(bytes(packet)) is None, "it is in the clear"
        if outer == 6 and udp:
            packet = without_udp(packet, theirs)
        opened = theirs.decrypt(packet)
        assert (opened.src, opened.dst) == (A.LAN1[4], FAR[4])
        assert mark_of(bytes(opened)) == n and len(opened) == len(inner)

    back = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
    send = wire.sender(lab.wan, "gw").send

    def sealed(n, of=ours, **kw):
        inner = IP(src=FAR[4], dst=A.LAN1[4]) / UDP(sport=2222, dport=1111) / Raw(marked(n))
        packet = of.encrypt(inner, **kw)
        if outer == 6 and udp and UDP not in packet:
            packet = with_udp(packet)
        return packet

    for n in range(100, 103):
        good = sealed(n)
        send(back / good)
        assert near.until(lambda p, n=n: mark_of(bytes(p)) == n) is not None, f"{n}: {esp_dropped(gw)}"

    def refused(packet, reason):
        before = esp_dropped(gw)
        send(back / packet)
        end = time.monotonic() + 3
        while esp_dropped(gw) == before and time.monotonic() < end:
            time.sleep(0.02)
        after = esp_dropped(gw)
        assert {r: after[r] - before[r] for r in after if after[r] != before[r]} == {reason: 1}

    refused(good, "esp-replay")
    bad = bytearray(bytes(sealed(110)))
    bad[-1] ^= 1
    refused(make(bytes(bad)), "esp-bad-icv")
    wrong = association(SPI_IN + 77, keys["key_in"], REMOTE[outer], LOCAL[outer])
    refused(sealed(111, of=wrong), "esp-unknown-spi")
    short = make(src=REMOTE[outer], dst=LOCAL[outer])
    cut = (UDP(sport=4500, dport=4500, chksum=0) if udp else b"")
    body = SPI_IN.to_bytes(4, "big") + (5).to_bytes(4, "big") + bytes(12)
    packet = short / cut / Raw(body) if udp else make(bytes(short.__class__(
        src=REMOTE[outer], dst=LOCAL[outer], **({"proto": 50} if outer == 4 else {"nh": 50})) / Raw(body)))
    refused(packet, "esp-truncated")
    # After all of that the next good one passes.
    send(back / sealed(120, seq_num=50))
    assert near.until(lambda p: mark_of(bytes(p)) == 120) is not None


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed (scripts/setup.sh does it)")
@pytest.mark.parametrize("udp", [False, True], ids=["plain", "udp"])
@pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
# Not ChaCha20-Poly1305: tshark does not know it for ESP. The check value is verified with scapy: tshark 4.0 decrypts
# AES-GCM without checking it.
@pytest.mark.parametrize("name", ["aes-128-gcm", "aes-256-gcm"])
def test_tshark_decrypts_what_we_send(gw_with, lab, wire, name, outer, udp, tmp_path):
    """SPI, sequence numbers in a row, padding, next header, and the packets inside with their checksums."""
    keys = esp_keys(CIPHERS[name][2])
    gw = gw_with(gateway_config("esp", outer, **keys, udp_encap=udp, probe_interval=0))
    lab.mute("inet")
    wan = wire.sniffer(lab.inet, "eth0")
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    sent, caught = [], []
    for n, size in enumerate((0, 1, 2, 3, 500, 1200)):
        family = 4 + n % 2 * 2
        net = IP(src=A.LAN1[4], dst=FAR[4]) if family == 4 else IPv6(src=A.LAN1[6], dst=FAR[6])
        sent.append((family, marked(n) + b"x" * size))
        wire.sender(lab.lan1, "eth0").send(link / net / UDP(sport=1111, dport=2222) / Raw(sent[-1][1]))
        caught.append(wan.until(lambda p: ESP in p or (UDP in p and p[UDP].dport == 4500)))
        assert caught[-1] is not None, f"packet {n} did not come out\n{gw.tail()}"
    good = tshark_says(caught, outer, keys["key_out"], tmp_path)
    assert [int(row["esp.spi"], 16) for row in good] == [SPI_OUT] * len(sent)
    first = int(good[0]["esp.sequence"])
    for n, (row, (family, data)) in enumerate(zip(good, sent, strict=True)):
        assert int(row["esp.sequence"]) == first + n and row["esp.protocol"] == ("0x04" if family == 4 else "0x29")
        # A header of 20 or 40 bytes, of 8, the data, two bytes behind: whole words.
        assert int(row["esp.pad_len"]) == -(28 + len(data) + 2) % 4
        assert bytes.fromhex(row["udp.payload"].split(",")[-1]) == data and not row["_ws.malformed"]
        assert row["udp.checksum.status"].split(",")[-1] == "1", "the inner checksum is good"
        inner = (row["ip.dst"] if family == 4 else row["ipv6.dst"]).split(",")[-1]
        assert inner == FAR[family]
    # With the wrong key there would be an error.
    wrong = tshark_says(caught, outer, os.urandom(CIPHERS[name][2]).hex(), tmp_path)
    assert all(data.hex() not in row["udp.payload"] for row, (_, data) in zip(wrong, sent, strict=True))


def tshark_says(packets, outer, key, tmp_path):
    """What tshark reads in ESP packets, with this key: a dictionary for each, fields of the inner packet last."""
    path = tmp_path / "sent.pcap"
    wrpcap(str(path), packets)
    cipher = "AES-GCM with 16 octet ICV [RFC4106]"
    row = (f"IPv{outer}", LOCAL[outer], REMOTE[outer], f"0x{SPI_OUT:08x}", cipher, f"0x{key}", "NULL", "")
    fields = ("esp.spi", "esp.sequence", "esp.pad_len", "esp.protocol", "ip.dst", "ipv6.dst", "udp.payload",
              "udp.checksum.status", "_ws.malformed")
    output = run([
        "tshark", "-r", path, "-T", "fields", "-E", "separator=|", *(w for f in fields for w in ("-e", f)),
        "-o", "esp.enable_encryption_decode:TRUE", "-o", "udp.check_checksum:TRUE",
        "-o", "uat:esp_sa:" + ",".join(f'"{word}"' for word in row), "-d", "udp.port==2222,data",
    ]).stdout
    return [dict(zip(fields, line.split("|"), strict=True)) for line in output.splitlines()]


def without_udp(packet, _sa):
    """scapy takes the UDP header off over IPv4 only."""
    esp = bytes(packet[UDP].payload)
    return IPv6(bytes(IPv6(src=packet.src, dst=packet.dst, nh=50) / Raw(esp)))


def with_udp(packet):
    esp = bytes(packet.payload)
    return IPv6(src=packet.src, dst=packet.dst) / UDP(sport=4500, dport=4500, chksum=0) / Raw(esp)


@pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
def test_a_peer_that_moves_is_followed(gw_with, lab, wire, outer):
    """NAT in front of the peer gives it another address and port: the holder of the key is answered there, others are not."""
    keys = esp_keys()
    gw = gw_with(gateway_config("esp", outer, **keys, udp_encap=True, probe_interval=0))
    lab.mute("inet")
    packet = {4: IP, 6: IPv6}[outer]
    moved_to = {4: "203.0.113.77", 6: "2001:db8:ffff::77"}[outer]
    udp = None if outer == 6 else UDP(sport=4500, dport=4500)
    ours = SecurityAssociation(
        ESP, spi=SPI_IN, crypt_algo="AES-GCM", crypt_key=bytes.fromhex(keys["key_in"]), esn_en=True,
        tunnel_header=packet(src=REMOTE[outer], dst=LOCAL[outer]), nat_t_header=udp,
    )
    far_wire, near = wire.sniffer(lab.inet, "eth0"), wire.sniffer(lab.lan1, "eth0")
    back, send = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan")), wire.sender(lab.wan, "gw").send
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))

    def goes_to(n):
        wire.sender(lab.lan1, "eth0").send(link / IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1, dport=2) / Raw(marked(n)))
        sent = far_wire.until(lambda p: UDP in p and p[UDP].sport == 4500)
        return sent[packet].dst, sent[UDP].dport

    def from_peer(n, src, port, spoil=False):
        sealed = ours.encrypt(IP(src=FAR[4], dst=A.LAN1[4]) / UDP(sport=2, dport=1) / Raw(marked(n)))
        esp = bytearray(bytes(sealed[UDP].payload if outer == 4 else sealed.payload))
        if spoil:
            esp[-1] ^= 1
        return packet(src=src, dst=LOCAL[outer]) / UDP(sport=port, dport=4500, chksum=0) / Raw(bytes(esp))

    assert goes_to(0) == (REMOTE[outer], 4500)
    send(back / from_peer(1, REMOTE[outer], 31000))
    assert near.until(lambda p: mark_of(bytes(p)) == 1) is not None
    assert goes_to(2) == (REMOTE[outer], 31000)
    for other in (from_peer(3, REMOTE[outer], 666, spoil=True), packet(src=REMOTE[outer], dst=LOCAL[outer])
                  / UDP(sport=31000, dport=4500, chksum=0) / Raw(b"\xff")):
        send(back / other)
    time.sleep(0.2)
    assert goes_to(4) == (REMOTE[outer], 31000)
    assert tunnels(gw)["pop1"]["esp"]["peer"] in (f"{REMOTE[outer]}:31000", f"[{REMOTE[outer]}]:31000")
    dropped = {reason: n for (_, reason), n in gw.drops().items()}
    assert dropped["esp-bad-icv"] == 1 and dropped["esp-keepalive"] == 1
    # Another address as well: what is for it leaves by the same router.
    router = wire.sniffer(lab.wan, "gw")
    send(back / from_peer(5, moved_to, 31001))
    assert near.until(lambda p: mark_of(bytes(p)) == 5) is not None
    wire.sender(lab.lan1, "eth0").send(link / IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1, dport=2) / Raw(marked(6)))
    assert router.until(lambda p: UDP in p and p[UDP].dport == 31001)[packet].dst == moved_to


def test_keys_are_shown_nowhere(gw_with):
    keys = esp_keys()
    gw = gw_with(gateway_config("esp", 4, **keys))
    output = json.dumps([gw.ctl("config", "show"), gw.ctl("tunnels"), gw.ctl("status")]) + gw.tail(1000)
    for key in (keys["key_in"], keys["key_out"]):
        assert key not in output and key[:16] not in output and key.upper() not in output
    limits = Path("/proc", str(gw.pid()), "limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"], core


# --- two gateways --------------------------------------------------------------------------------


def both(gw_with, far, outer=4, extra_near="", extra_far="", **keys):
    keys = {**esp_keys(), "probe_interval": 1000, **keys}
    gw = gw_with(gateway_config("esp", outer, extra=extra_near, **keys))
    far.use(far.config("esp", outer, **turned(keys)) + extra_far)
    wait_for(lambda: tunnels(gw)["pop1"]["rtt_us"] is not None and tunnels(far)["branch"]["rtt_us"] is not None, 20)
    wait_for(lambda: far.lab.lan1.ping(FAR[4], count=1, wait=1) == 1, 20)
    return gw, keys


@pytest.mark.parametrize("udp", [False, True], ids=["plain", "udp"])
@pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
@BUSY
def test_two_gateways(gw_with, lab, far, outer, udp, family):
    gw, _ = both(gw_with, far, outer, udp_encap=udp)
    assert lab.lan1.ping(FAR[family]) == 5
    assert far.site.ping(A.LAN1[family]) == 5
    got = iperf(lab.lan1, far.site, FAR[family], seconds=1)
    assert got["mbit"] > 20, got
    wait_for(lambda: tunnels(gw)["pop1"]["rtt_us"] is not None)
    state = tunnels(gw)["pop1"]
    assert state["state"] == "up" and state["loss_percent"] is not None
    assert state["esp"]["spi_out"] == SPI_OUT


@BUSY
def test_rekeying_under_load_loses_nothing(gw_with, lab, far, tmp_path):
    """Five times, at the rate that the gateways carry: the source has 32 packets on the way and sends another for each
    that is answered, so no ring is full and every loss is due to a key."""
    gw, old = both(gw_with, far)
    assert lab.lan1.ping(FAR[4]) == 5
    lost = []
    stop = threading.Event()
    flood = ["ping", "-f", "-q", "-l", 32, "-s", 1000, "-c", 2000, FAR[4]]

    def load():
        while not stop.is_set():
            output = lab.lan1.run(flood, check=False, timeout=60).stdout
            sent, got = re.search(r"(\d+) packets transmitted, (\d+) received", output).groups()
            lost.append(int(sent) - int(got))

    pinger = threading.Thread(target=load)
    pinger.start()
    begin = time.monotonic()
    try:
        for n in range(1, 6):
            time.sleep(0.5)
            keys = esp_keys(spi=n << 8)
            files = {}
            for end, of in (("near", keys), ("far", turned(keys))):
                files[end] = tmp_path / f"{end}-{n}"
                files[end].write_text(json.dumps(of))
            orders = [lambda *o, f=files: gw.ctl("tunnels", "rekey", "pop1", str(f["near"]), *o),
                      lambda *o, f=files: far.ctl("tunnels", "rekey", "branch", str(f["far"]), *o)]
            # The near end is rekeyed first, the next time the far end. For the second one `--now`: the other has the pair.
            first, last = orders if n % 2 else reversed(orders)
            first()
            time.sleep(0.4)
            last("--now")
            wait_for(lambda k=keys: tunnels(gw)["pop1"]["esp"]["spi_out"] == k["spi_out"], 15)
            wait_for(lambda k=keys: tunnels(far)["branch"]["esp"]["spi_out"] == k["spi_in"], 15)
        time.sleep(0.5)
    finally:
        stop.set()
        pinger.join()
    rate = 2000 * len(lost) / (time.monotonic() - begin)
    print(f"{len(lost) * 2000} echoes, {rate:.0f} a second in each direction, lost {lost}")
    assert len(lost) > 1 and sum(lost) == 0, lost
    assert old["spi_out"] != tunnels(gw)["pop1"]["esp"]["spi_out"]


@BUSY
def test_keys_by_agreement(gw_with, lab, far, tmp_path):
    """Each gateway gives its public key; what the controller distributes is enough for both and for no third party."""
    agreed = {"keying": "agreed", "probe_interval": 200}
    gw = gw_with(gateway_config("esp", 4, **agreed))
    far.use(far.config("esp", 4, **agreed))
    assert lab.lan1.ping(FAR[4], count=1, wait=1) == 0, "there are no keys yet"

    def exchange(**renew):
        public = {}
        for gateway, end in (("a", gw), ("b", far)):
            public[gateway] = end.ctl("tunnels", "key", gateway, *(["--renew"] if renew.get(gateway) else []))
        for end, name, peer in ((gw, "pop1", "b"), (far, "branch", "a")):
            path = tmp_path / "peers"
            path.write_text(json.dumps([{"tunnel": name, "link": "wan1", **public[peer]}]))
            end.ctl("tunnels", "peers", str(path))
        return public

    first = exchange()
    # Without keys no probe was answered: both ends took the tunnel for down.
    wait_for(lambda: tunnels(gw)["pop1"]["state"] == tunnels(far)["branch"]["state"] == "up")
    assert lab.lan1.ping(FAR[4]) == 5
    spi = tunnels(gw)["pop1"]["esp"]["spi_out"]
    second = exchange(a=True)
    assert second["a"]["public_key"] != first["a"]["public_key"] and second["b"] == first["b"]
    assert lab.lan1.ping(FAR[4], count=200, interval=0.01) == 200
    wait_for(lambda: tunnels(gw)["pop1"]["esp"]["spi_out"] != spi)
    assert lab.lan1.ping(FAR[4]) == 5


@BUSY
def test_a_restart_is_no_replay(gw_with, gateway, lab, far):
    """Sequence numbers continue after a daemon was killed."""
    gw, keys = both(gw_with, far)
    assert lab.lan1.ping(FAR[4], count=50, interval=0.01) == 50
    config = gateway.running
    gw.kill()
    gw = gw_with(config)
    wait_for(lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1, 15)
    assert lab.lan1.ping(FAR[4]) == 5
    assert sum(d["packets"] for d in far.ctl("drops")["drops"] if d["reason"] == "esp-replay") == 0


# --- paths ---------------------------------------------------------------------------------------


@BUSY
@pytest.mark.alone
def test_failover_and_back(gw_with, lab, far):
    """Two tunnels, one better: the outage is shorter than three probes and 100 ms, and back loses nothing.

    A machine that stands still for a moment makes it longer and takes tunnels down that are up, so the best of three
    attempts counts."""
    first, second = {**esp_keys()}, {**esp_keys(spi=0x10), "udp_encap": True}
    live = {"probe_interval": 200, "probe_loss": 3}

    def config_of(local, remote, of, net):
        out = tunnel("first", "esp", 4, local=local, remote=remote, **of(first), **live)
        out += tunnel("second", "esp", 4, local=local, remote=remote, **of(second), **live)
        for name, metric in (("first", 10), ("second", 20)):
            out += route(net, name) + f"metric = {metric}\n"
        return out

    gw = gw_with(lab_config(config_of(LOCAL[4], REMOTE[4], dict, "10.77.0.0/24")))
    text = far.config("esp", 4, **turned(first))
    text = text[: text.index("\n[[tunnel]]")] + config_of(REMOTE[4], LOCAL[4], turned, BRANCH_NET[4])
    far.use(text)
    wait_for(lambda: all(t["rtt_us"] is not None for t in (*tunnels(gw).values(), *tunnels(far).values())))
    output = []
    for _ in range(3):
        wait_for(lambda: all(t["state"] == "up" for t in (*tunnels(gw).values(), *tunnels(far).values())))
        faults = fail_over_and_back(gw, lab, far)
        output.append(faults)
        if not faults:
            break
    assert not faults, output


def fail_over_and_back(gw, lab, far):
    """The first tunnel's packets are lost for a while: what was not as it should be."""
    faults = []

    def expect(true, text):
        if not true:
            faults.append(text)

    expect(lab.lan1.ping(FAR[4]) == 5, "echoes lost before anything happens")
    lost, loaded = [], []
    pinger = threading.Thread(target=lambda: lost.append(400 - lab.lan1.ping(FAR[4], count=400, interval=0.01)))
    # Beside the echoes, which measure both directions, a stream that measures one.
    iperf3 = threading.Thread(target=lambda: loaded.append(iperf(lab.lan1, far.site, FAR[4], seconds=5, udp_mbit=5)))
    iperf3.start()
    pinger.start()
    time.sleep(1)
    with hop(lab, "meta l4proto esp"):
        pinger.join()
        iperf3.join()
        outage, missed = lost[0] * 0.01, loaded[0]["lost"] / loaded[0]["packets"] * 5
        print(f"outage {outage:.2f} s of echoes, {missed:.2f} s of iperf3's stream")
        # Much less would be no failure that three probes found.
        expect(0.2 < missed < 3 * 0.2 + 0.1, f"iperf3's stream misses {missed:.2f} s")
        expect(0.2 < outage < 3 * 0.2 + 0.1, f"echoes are lost for {outage:.2f} s")
        states = [tunnels(gw)[name]["state"] for name in ("first", "second")]
        expect(states == ["down", "up"], f"first and second are {states}")
        before = tunnels(gw)["second"]["tx_packets"]
        expect(lab.lan1.ping(FAR[4]) == 5, "echoes are lost in the second tunnel")
        expect(tunnels(gw)["second"]["tx_packets"] > before, "the second tunnel is not in use")
    wait_for(lambda: tunnels(gw)["first"]["state"] == "up" and tunnels(far)["first"]["state"] == "up")
    back = lab.lan1.ping(FAR[4], count=800, interval=0.01)
    expect(back == 800, f"the reverse direction loses {800 - back} of 800")
    before = tunnels(gw)["first"]["tx_packets"]
    expect(lab.lan1.ping(FAR[4], count=20) == 20, "echoes are lost in the first tunnel")
    expect(tunnels(gw)["first"]["tx_packets"] >= before + 20, "the first tunnel is not in use again")
    return faults


@BUSY
def test_no_black_hole_behind_a_silent_hop(gw_with, lab, far, family):
    """A hop silently drops packets that are too large: probing finds the path MTU, and all sizes pass."""

    def found(gw, mtu):
        return tunnels(gw)["pop1"]["path_mtu"] == mtu and tunnels(far)["branch"]["path_mtu"] == mtu

    # Through 1300 bytes IPv6 has less than its 1280: pieces of a host's datagram leave in one outer packet or in two.
    takes = 1300
    sizes = [*range(60, 1500, 97), 1280, 1300, 1499, 1500]
    with hop(lab, f"meta length > {takes}"):
        gw, _ = both(gw_with, far)
        wait_for(lambda: found(gw, takes), 20)
        for df in (False, True):
            got = sweep(lab.lan1, far.site, family, sizes, df)
            assert "lost" not in got.values(), got
        assert iperf(lab.lan1, far.site, FAR[family], seconds=1)["mbit"] > 10
    # And a path that shrinks while it is in use.
    gw, _ = both(gw_with, far)
    wait_for(lambda: tunnels(gw)["pop1"]["path_mtu"] == 1500)
    with hop(lab, "meta length > 1300"):
        wait_for(lambda: found(gw, 1300), 25)
        got = sweep(lab.lan1, far.site, family, sizes, True)
        assert "lost" not in got.values() and got[1224 if family == 4 else 1280] == "echoed", got
