"""Tunnels against other implementations: the kernel's devices, scapy, tshark; and between two
gateways."""

import json
import shutil

import pytest
from scapy.layers.l2 import GRE
from scapy.layers.vxlan import VXLAN

from harness.lab import Addresses as A
from harness.net import run
from harness.traffic import iperf
from harness.tunnels import (
    FAR,
    LOCAL,
    REMOTE,
    esp_keys,
    gateway_config,
    has_kernel,
    sweep,
    tunnel,
    tunnels,
    turned,
)
from harness.wire import IP, UDP, Ether, IPv6, Raw, checksums_ok, mark_of, marked, wrpcap

pytestmark = pytest.mark.sag

OUTER = pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
KINDS = {
    "vxlan": {"vni": 100},
    "gre": {},
    "gre-full": {"key": 7, "checksum": True, "sequence": True},
    "ipip": {},
}
# Without probes, so that all counted packets are the test's own and only ICMP says what a path carries.
ESP = {"esp": {"probe_interval": 0}, "esp-udp": {"probe_interval": 0, "udp_encap": True, "keepalive": 0}}
ALL = {**KINDS, **ESP}


def kind_of(name):
    return name.split("-")[0]


def forget_paths(*hosts):
    for ns in hosts:
        ns.run(["ip", "route", "flush", "cache"])
        ns.run(["ip", "-6", "route", "flush", "cache"])


# --- the kernel's devices ----------------------------------------------------------------------

KERNEL = {
    ("vxlan", 4): "vxlan id 100 dstport 4789 local {r} remote {l}",
    ("vxlan", 6): "vxlan id 100 dstport 4789 local {r} remote {l}",
    ("gre", 4): "gre local {r} remote {l}",
    ("gre-key", 4): "gre local {r} remote {l} key 7 csum",
    ("gre", 6): "ip6gre local {r} remote {l}",
    ("ipip", 4): "ipip local {r} remote {l}",
    ("sit", 4): "sit local {r} remote {l}",
    ("ipip", 6): "ip6tnl mode any local {r} remote {l} encaplimit none",
}


@pytest.fixture(params=KERNEL, ids=lambda p: f"{p[0]}-over{p[1]}")
def kernel_device(request, lab):
    """A tunnel device of the kernel in `inet`, with a far host's addresses on it."""
    kind, outer = request.param
    inet = lab.inet
    form = KERNEL[request.param].format(l=LOCAL[outer], r=REMOTE[outer])
    why = has_kernel(inet, form)
    if why:
        pytest.skip(f"this kernel has no {form.split()[0]} device: {why}")
    inet.ip(f"link add tun type {form}")
    inet.batch(
        "link set tun up\naddr add 10.255.0.2/30 dev tun\naddr add fd00:255::2/64 dev tun nodad\n"
        "addr add 10.77.0.10/32 dev tun\naddr add fd77::10/128 dev tun nodad\n"
    )
    via = ("via 10.255.0.1", "via fd00:255::1") if kind == "vxlan" else ("", "")
    inner = {"sit": [6], "ipip": [4] if outer == 4 else [4, 6]}.get(kind, [4, 6])
    if 4 in inner:
        inet.ip(f"route add 192.0.2.0/26 {via[0]} dev tun src 10.77.0.10")
    if 6 in inner:
        inet.ip(f"route add 2001:db8:1::/64 {via[1]} dev tun src fd77::10")
    yield kind, outer, inner
    inet.ip("link del tun")


def test_the_kernels_device(gw_with, lab, kernel_device):
    """Both directions, small and large, over the kernel's own implementation."""
    kind, outer, inner = kernel_device
    keys = {"vxlan": {"vni": 100}, "gre-key": {"key": 7, "checksum": True}}.get(kind, {})
    ours = {"sit": "ipip"}.get(kind, kind_of(kind))
    gw = gw_with(gateway_config(ours, outer, addresses=["10.255.0.1/30", "fd00:255::1/64"], **keys))
    for family in inner:
        # The kernel sends first: its ARP request asks for our Ethernet address and contains its own. A busy machine may lose an
        # answer to time; after that all arrive.
        assert lab.inet.ping(A.LAN1[family], options=["-I", FAR[family]]) >= 3
        assert lab.inet.ping(A.LAN1[family], options=["-I", FAR[family]]) == 5
        assert lab.lan1.ping(FAR[family]) == 5
        assert lab.inet.ping("10.255.0.1" if family == 4 else "fd00:255::1") == 5, "our address inside"
        got = iperf(lab.lan1, lab.inet, FAR[family], seconds=1)
        assert got["mbit"] > 20, got
        size = 1400 if family == 4 else 1300
        assert lab.lan1.ping(FAR[family], count=3, options=["-M", "dont", "-s", size]) == 3
    state = tunnels(gw)["pop1"]
    assert state["state"] == "up" and state["rx_packets"] > 10 and state["tx_packets"] > 10
    # The kernel's device also talks to its link (router solicitations, MLD): these packets do not count.
    local = sum(n for (_, reason), n in gw.drops().items() if reason == "tunnel-local")
    assert state["drops"] == local, (state, gw.drops())


# --- scapy and tshark ----------------------------------------------------------------------------


def outer_of(packet, outer):
    return packet[IP] if outer == 4 else packet[IPv6]


def header(kind, keys):
    """The far end's header between the outer IP header and the packet, as scapy writes it."""
    if kind == "vxlan":
        mac = {"src": "02:64:cb:00:71:0a", "dst": keys["mac"]}
        return UDP(sport=55555, dport=4789, chksum=0) / VXLAN(vni=keys["vni"], flags=8) / Ether(**mac)
    if kind == "gre":
        flags = {"key_present": 1, "key": keys["key"]} if "key" in keys else {}
        if keys.get("checksum"):
            flags["chksum_present"] = 1
        if keys.get("sequence"):
            flags.update(seqnum_present=1, seqence_number=42)
        return GRE(**flags)
    return None


@pytest.fixture
def muted(lab):
    """A function: a host takes nothing in until the test is over."""
    names = []

    def mute(name):
        names.append(name)
        lab.mute(name)

    yield mute
    for name in names:
        getattr(lab, name).run(["nft", "delete", "table", "inet", "mute"])


@OUTER
@pytest.mark.parametrize("name", ["gre", "gre-full", "ipip"])
def test_scapy_is_the_far_end(gw_with, lab, wire, muted, name, outer, family, tmp_path):
    """What we send is what scapy and tshark read; what scapy sends is accepted."""
    kind, keys = kind_of(name), KINDS[name]
    gw_with(gateway_config(kind, outer, **keys))
    muted("inet")
    far, near = wire.sniffer(lab.inet, "eth0"), wire.sniffer(lab.lan1, "eth0")
    net = IP(src=A.LAN1[4], dst=FAR[4]) if family == 4 else IPv6(src=A.LAN1[6], dst=FAR[6])
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    caught, numbers = [], []
    for n in range(3):
        wire.sender(lab.lan1, "eth0").send(link / net / UDP(sport=1111, dport=2222) / Raw(marked(n)))
        out = far.until(lambda p, n=n: mark_of(bytes(p)) == n)
        assert out is not None, f"packet {n} did not come out"
        caught.append(out)
        ip = outer_of(out, outer)
        assert (ip.src, ip.dst) == (LOCAL[outer], REMOTE[outer])
        assert checksums_ok(bytes(out))
        if kind == "gre":
            gre = GRE(bytes(ip.payload))
            assert gre.proto == (0x0800 if family == 4 else 0x86DD)
            assert (gre.key_present, gre.chksum_present, gre.seqnum_present) == ((1, 1, 1) if keys else (0, 0, 0))
            if keys:
                numbers.append(gre.seqence_number)
                assert gre.key == 7 and numbers == [numbers[0] + i for i in range(n + 1)]
    if shutil.which("tshark"):
        path = tmp_path / "sent.pcap"
        wrpcap(str(path), caught)
        # The port inside is another protocol's, which our payload is not.
        options = ["-o", "ip.check_checksum:TRUE", "-d", "udp.port==2222,data", "-V"]
        output = run(["tshark", "-r", path, *options]).stdout
        assert "Malformed" not in output and "[Bad" not in output and "incorrect" not in output, output
        assert output.count("2222") >= 3

    back = IP(src=FAR[4], dst=A.LAN1[4]) if family == 4 else IPv6(src=FAR[6], dst=A.LAN1[6])
    over = IP(src=REMOTE[4], dst=LOCAL[4]) if outer == 4 else IPv6(src=REMOTE[6], dst=LOCAL[6])
    if kind == "ipip":
        over = over.__class__(src=over.src, dst=over.dst, **({"proto": 4 if family == 4 else 41} if outer == 4 else {"nh": 4 if family == 4 else 41}))
    head = header(kind, keys)
    frame = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan")) / over
    for n in range(10, 13):
        inner = back / UDP(sport=2222, dport=1111) / Raw(marked(n))
        wire.sender(lab.wan, "gw").send(frame / head / inner if head else frame / inner)
        got = near.until(lambda p, n=n: mark_of(bytes(p)) == n)
        assert got is not None, f"packet {n} did not come through"
        assert checksums_ok(bytes(got))


def test_what_is_wrong_is_dropped_by_name(gw_with, lab, wire):
    gw = gw_with(gateway_config("vxlan", 4, vni=100, mac="02:00:00:00:aa:01"))
    near = wire.sniffer(lab.lan1, "eth0")
    frame = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
    inner = IP(src=FAR[4], dst=A.LAN1[4]) / UDP(sport=2222, dport=1111)

    def sent(over, n, vni=100, flags=8, mac="02:00:00:00:aa:01"):
        head = UDP(sport=55555, dport=4789, chksum=0) / VXLAN(vni=vni, flags=flags) / Ether(src="02:00:00:00:bb:02", dst=mac)
        return frame / over / head / inner / Raw(marked(n))

    over = IP(src=REMOTE[4], dst=LOCAL[4])
    for n, (packet, reason) in enumerate([
        (sent(over, 0, vni=101), "tunnel-unknown"),
        (sent(over, 1, flags=0), "tunnel-bad-header"),
        (sent(over, 2, mac="02:00:00:00:cc:03"), "tunnel-bad-header"),
        (sent(IP(src=REMOTE[4], dst=LOCAL[4], tos=3), 3), "tunnel-ecn"),
    ]):
        before = gw.drops().get(("1", reason), 0)
        wire.sender(lab.wan, "gw").send(packet)
        assert near.until(lambda p, n=n: mark_of(bytes(p)) == n, timeout=0.3) is None
        assert gw.drops()[("1", reason)] == before + 1, reason
    wire.sender(lab.wan, "gw").send(sent(over, 9))
    assert near.until(lambda p: mark_of(bytes(p)) == 9) is not None


# --- two gateways -------------------------------------------------------------------------------


@pytest.fixture
def through(gw_with, far, lab):
    """A function: both gateways with a tunnel of this kind between them."""

    def use(name, outer, **more):
        keys = {**ALL[name], **more}
        if name in ESP:
            keys |= esp_keys()
        far.use(far.config(kind_of(name), outer, **(turned(keys) if name in ESP else keys)))
        gw = gw_with(gateway_config(kind_of(name), outer, **keys))
        forget_paths(lab.lan1, far.site)
        return gw

    return use


@OUTER
@pytest.mark.parametrize("name", KINDS)
def test_between_two_gateways(through, far, lab, name, outer):
    gw = through(name, outer)
    ends = lambda: (tunnels(gw)["pop1"], {t["name"]: t for t in far.ctl("tunnels")["tunnels"]}["branch"])
    here0, there0 = ends()
    for family in (4, 6):
        assert lab.lan1.ping(FAR[family], count=5) >= 4
        assert far.site.ping(A.LAN1[family], count=5) >= 4
        got = iperf(lab.lan1, far.site, FAR[family], seconds=1)
        assert got["mbit"] > 20, got
    here, there = ends()
    gained = lambda now, then, key: now[key] - then[key]
    # TCP finds out what the path takes: a few of what one end sends do not reach the other.
    for sender, sender0, taker, taker0 in ((here, here0, there, there0), (there, there0, here, here0)):
        sent, taken = gained(sender, sender0, "tx_packets"), gained(taker, taker0, "rx_packets")
        assert 10 < taken <= sent + 5 and taken >= 0.97 * sent - 5, (sent, taken)
    assert here["mtu"] == 1500 - here["overhead"]


@OUTER
@pytest.mark.parametrize("name", ALL)
def test_no_size_is_lost(through, far, lab, name, outer, family):
    """Every size arrives, or its sender gets an ICMP error; without DF all arrive."""
    through(name, outer)
    sizes = [*range(60, 1380, 60), *range(1380, 1501)]
    free = sweep(lab.lan1, far.site, family, sizes, dont_fragment=False)
    assert [s for s, what in free.items() if what != "echoed"] == [], "without DF"
    held = sweep(lab.lan1, far.site, family, sizes, dont_fragment=True)
    assert [s for s, what in held.items() if what == "lost"] == [], "with DF"
    assert held[1380] == "echoed" and held[1500] == "too-big"


@OUTER
@pytest.mark.parametrize("name", ["vxlan", "gre", "ipip", "esp", "esp-udp"])
def test_a_narrow_link_on_the_way_is_learned(through, far, lab, name, outer, family):
    """A router in the middle says that 1,300 bytes are its limit."""
    gw = through(name, outer)
    lab.wan.ip("link set inet mtu 1300")
    try:
        sizes = [60, 1000, 1200, 1250, 1280, 1300, 1400, 1500]
        assert set(sweep(lab.lan1, far.site, family, sizes, dont_fragment=True).values()) <= {"echoed", "too-big"}
        assert set(sweep(lab.lan1, far.site, family, sizes, dont_fragment=False).values()) == {"echoed"}
        assert tunnels(gw)["pop1"]["path_mtu_learned"] == 1300
        got = iperf(lab.lan1, far.site, FAR[family], seconds=1)
        assert got["mbit"] > 10, got
    finally:
        lab.wan.ip("link set inet mtu 1500")


@pytest.mark.parametrize("name", ["vxlan", "gre", "ipip", "esp", "esp-udp"])
def test_fragments_outside(through, far, lab, wire, name, family):
    """fragment = "outer": 1500 bytes pass in one piece inside, and in two outside."""
    through(name, 4, fragment="outer")
    outside = wire.sniffer(lab.wan, "gw")
    held = sweep(lab.lan1, far.site, family, [60, 1400, *range(1436, 1484), 1500], dont_fragment=True)
    assert set(held.values()) == {"echoed"}, held
    pieces = [Ether(frame) for frame in outside.drain()]
    assert any(IP in p and p[IP].src == LOCAL[4] and p[IP].frag for p in pieces)


@OUTER
def test_established_flows_stay_in_xdp(through, far, lab, outer):
    """Neither end hands packets of an established flow to a worker; over IPv6 they have UDP checksums."""
    gw = through("vxlan", outer)
    assert lab.lan1.ping(FAR[4], count=3) == 3
    before = {n: (p["fast"], p["punted"]) for n, p in gw.ports().items()}
    got = iperf(lab.lan1, far.site, FAR[4], seconds=1)
    after = {n: (p["fast"], p["punted"]) for n, p in gw.ports().items()}
    for port in ("0", "1"):
        fast, punted = (after[port][i] - before[port][i] for i in (0, 1))
        assert fast > 100 and punted < fast / 20, (port, fast, punted, got)


def test_routes_and_explain_name_the_tunnel(through):
    gw = through("gre", 4)
    [row] = [r for r in gw.ctl("routes")["routes"] if r["destination"] == "10.77.0.0/24"]
    assert row["next_hops"][0]["port"] == "pop1" and row["next_hops"][0]["state"] == "tunnel"
    output = json.dumps(gw.ctl("explain", "--port", "0", "--src", A.LAN1[4], "--dst", FAR[4], "--proto", "udp", "--dport", "9"))
    assert "through tunnel pop1" in output


def test_a_bad_tunnel_is_refused_with_its_place(lab, gw):
    text = gateway_config("vxlan", 4, vni=100, key=3)
    path = lab.run_dir / "bad.toml"
    path.write_text(text)
    code, output = gw.foreground("check", "--config", path)
    assert code != 0 and "tunnel[0].key" in output, output
    assert tunnel("x", "gre", 4) not in output


@pytest.mark.parametrize(("name", "outer", "family"), [("gre", 4, 4), ("gre", 6, 6), ("ipip", 4, 6), ("ipip", 6, 4)])
def test_padding_stays_on_its_link(gw_with, lab, wire, muted, name, outer, family):
    """What a link puts behind a short packet goes neither into a tunnel nor on from one, and keeps nobody out of XDP."""
    gw = gw_with(gateway_config(kind_of(name), outer, **KINDS[name]))
    muted("inet")
    far, near = wire.sniffer(lab.wan, "gw"), wire.sniffer(lab.lan1, "eth0")
    padding = bytes(range(1, 21))
    net = IP(src=A.LAN1[4], dst=FAR[4]) if family == 4 else IPv6(src=A.LAN1[6], dst=FAR[6])
    back = IP(src=FAR[4], dst=A.LAN1[4]) if family == 4 else IPv6(src=FAR[6], dst=A.LAN1[6])
    inside = 4 if family == 4 else 41
    if outer == 4:
        over = IP(src=REMOTE[4], dst=LOCAL[4], **({"proto": inside} if name == "ipip" else {}))
    else:
        over = IPv6(src=REMOTE[6], dst=LOCAL[6], **({"nh": inside} if name == "ipip" else {}))
    to_gw = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    from_far = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan")) / over
    head = header(name, {})
    before = {n: p["fast"] for n, p in gw.ports().items()}
    for n in range(6):
        out = to_gw / net / UDP(sport=1111, dport=2222) / Raw(marked(n))
        wire.sender(lab.lan1, "eth0").send(bytes(out) + padding)
        got = far.until(lambda p, n=n: mark_of(bytes(p)) == n)
        assert got is not None and padding not in bytes(got) and checksums_ok(bytes(got)), f"packet {n} into the tunnel"
        inner = back / UDP(sport=2222, dport=1111) / Raw(marked(100 + n))
        frame = from_far / head / inner if head else from_far / inner
        wire.sender(lab.wan, "gw").send(bytes(frame) + padding)
        got = near.until(lambda p, n=n: mark_of(bytes(p)) == 100 + n)
        assert got is not None and padding not in bytes(got) and checksums_ok(bytes(got)), f"packet {n} out of it"
    fast = {n: p["fast"] - before[n] for n, p in gw.ports().items()}
    assert fast["0"] >= 3 and fast["1"] >= 3, fast
