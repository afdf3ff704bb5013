"""Tunnels as devices of the kernel: what the gateway itself sends and receives by them, beside transit in XDP."""

import json
import os
import socket
import time

import pytest

from harness.fd_store import ServiceManager
from harness.port_counters import restarted
from harness.routers import BirdBgp, FrrBgp
from harness.traffic import iperf, process
from harness.tunnels import BRANCH_NET, FAR, FAR_NET, esp_keys, gateway_config, to_far, tunnel, tunnels, turned
from harness.waiting import within

pytestmark = pytest.mark.sag

NEAR_END = {4: "10.255.0.1", 6: "fd00:255::1"}
FAR_END = {4: "10.255.0.2", 6: "fd00:255::2"}
OURS = {"device": "pop1", "addresses": ["10.255.0.1/30", "fd00:255::1/64"]}
THEIRS = {"device": "branch", "addresses": ["10.255.0.2/30", "fd00:255::2/64"]}
KINDS = [("vxlan", 4), ("gre", 6), ("ipip", 4), ("ipip", 6), ("esp", 6), ("esp-udp", 4), ("esp-fec", 4)]


def keys_of(kind):
    """Kind and keys of both ends."""
    if not kind.startswith("esp"):
        keys = {"vxlan": {"vni": 100}, "gre": {"key": 7}}.get(kind, {})
        return kind, keys, keys
    more = {"esp-udp": {"udp_encap": True}, "esp-fec": {"fec": True}}.get(kind, {})
    keys = esp_keys()
    return "esp", {**keys, **more}, {**turned(keys), **more}


def device(ns, name):
    """What `ip` says of a device; None: there is none."""
    found = ns.ip(f"-j addr show dev {name}", check=False).stdout
    return json.loads(found)[0] if found.strip() else None


def is_ready(ns, name):
    it = device(ns, name)
    return it is not None and "LOWER_UP" in it["flags"] and len([a for a in it["addr_info"] if a["scope"] == "global"]) == 2


def both_ends(gw_changed, far, lab, kind="ipip", outer=4, extra="", **keys):
    kind, ours, theirs = keys_of(kind)
    keys.setdefault("probe_interval", 0)
    far.use(far.config(kind, outer, **theirs, **THEIRS, **keys))
    gw = gw_changed(gateway_config(kind, outer, extra=extra, **ours, **OURS, **keys))
    within(3, "both devices are there", lambda: is_ready(lab.gw, "pop1") and is_ready(lab.inet, "branch"))
    # Packets do not wait for the router of the outer path.
    within(3, "the path is known", lambda: lab.gw.ping(FAR_END[4], count=1, wait=1) == 1)
    return gw


def connect(lab, family):
    """A connection of the gateway itself to the far one, through the tunnel."""
    kind = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
    with lab.inet.socket(kind, socket.SOCK_STREAM) as listener, lab.gw.socket(kind, socket.SOCK_STREAM) as client:
        listener.bind((FAR_END[family], 0))
        listener.listen()
        client.settimeout(10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"pop1")
        client.connect((FAR_END[family], listener.getsockname()[1]))
        server, _ = listener.accept()
        server.settimeout(10)
        return client.dup(), server


def talk(one, other, size=200_000):
    """Bytes both ways through a connection."""
    for source, sink in ((one, other), (other, one)):
        sent = os.urandom(1000) * (size // 1000)
        source.settimeout(10)
        got = bytearray()
        at = 0
        while len(got) < size:
            at += source.send(sent[at : at + 20_000]) if at < size else 0
            got += sink.recv(65536)
        assert bytes(got) == sent


@pytest.mark.parametrize(("kind", "outer"), KINDS, ids=str)
def test_the_gateway_itself_speaks_through_the_tunnel(gw_changed, far, lab, kind, outer):
    gw = both_ends(gw_changed, far, lab, kind, outer)
    mtu = tunnels(gw)["pop1"]["mtu"]
    assert device(lab.gw, "pop1")["mtu"] == mtu, "that of the tunnel inside"
    for family in (4, 6):
        assert lab.gw.ping(FAR_END[family], options=["-I", NEAR_END[family]]) == 5
        assert lab.inet.ping(NEAR_END[family]) == 5
        assert "bytes from" in lab.gw.out(["ping", "-c", "1", "-W", "2", "-I", "pop1", FAR_END[family]])
        # As large as the tunnel takes, and in fragments.
        header = {4: 28, 6: 48}[family]
        assert lab.gw.ping(FAR_END[family], count=3, options=["-M", "do", "-s", mtu - header]) == 3
        assert lab.inet.ping(NEAR_END[family], count=3, options=["-M", "dont", "-s", 3000]) == 3
        talk(*connect(lab, family))
        assert lab.lan1.ping(FAR[family]) >= 4, "transit"
    state = tunnels(gw)["pop1"]["device"]
    assert (state["name"], state["mtu"], state["problem"], state["lost"]) == ("pop1", mtu, None, 0)
    # Both families, five pings and more each way.
    assert state["tx_packets"] > 40 and state["rx_packets"] > 40, state


def test_tcpdump_sees_what_is_inside(gw_changed, far, lab):
    both_ends(gw_changed, far, lab, "esp")
    with process(lab.gw, ["tcpdump", "-l", "-n", "-c", "4", "-i", "pop1", "icmp or icmp6"]) as seen:
        lines = []
        while not lines or "listening" not in lines[-1]:
            lines.append(seen.stdout.readline())
        assert lab.gw.ping(FAR_END[4], count=1) == 1 and lab.inet.ping(NEAR_END[6], count=1) == 1
        text = "".join(seen.stdout.readline() for _ in range(4))
    for what in ("10.255.0.1 > 10.255.0.2: ICMP echo request", "10.255.0.2 > 10.255.0.1: ICMP echo reply",
                 "fd00:255::2 > fd00:255::1: ICMP6, echo request", "fd00:255::1 > fd00:255::2: ICMP6, echo reply"):
        assert what in text, text


def test_the_kernels_settings_are_a_ports(gw_changed, far, lab):
    """What comes out of the tunnel for others never passes the kernel, nor does it forward into it."""
    gw = both_ends(gw_changed, far, lab)
    lab.gw.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
    within(3, "settings", lambda: lab.gw.out("sysctl -n net.ipv4.conf.pop1.forwarding").strip() == "0")
    for name, value in {"accept_redirects": "0", "send_redirects": "0"}.items():
        assert lab.gw.out(f"sysctl -n net.ipv4.conf.pop1.{name}").strip() == value, name
    assert lab.gw.out("sysctl -n net.ipv6.conf.pop1.accept_ra").strip() == "0"
    lab.gw.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=0"])
    # A program of the machine that claims to be somebody else.
    before = tunnels(gw)["pop1"]["drops"]
    lab.gw.ip("addr add 10.99.0.1/32 dev lo")
    with lab.gw.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        header = bytes.fromhex("45000014000000004059000 0".replace(" ", "")) + socket.inet_aton("192.0.2.77") + socket.inet_aton("10.255.0.2")
        raw.sendto(header, ("10.255.0.2", 0))
    within(2, "it is dropped", lambda: tunnels(gw)["pop1"]["drops"] == before + 1)
    assert {"reason": "tunnel-source", "packets": 1} in tunnels(gw)["pop1"]["device"]["drops"]
    assert "1 tunnel-source" in lab.gw.out([lab.sagctl, "--socket", lab.socket, "tunnels"])
    lab.gw.ip("addr del 10.99.0.1/32 dev lo")


def test_device_and_connections_survive_the_daemon(gw_changed, far, lab, accounting):
    gw = both_ends(gw_changed, far, lab)
    config, index = gw.running, device(lab.gw, "pop1")["ifindex"]
    lab.gw.ip("addr add 10.255.9.1/32 dev pop1")
    talks = [connect(lab, family) for family in (4, 6)]
    for ends in talks:
        talk(*ends, size=20_000)
    gw.kill()
    within(2, "nobody has it open", lambda: "LOWER_UP" not in device(lab.gw, "pop1")["flags"])
    left = device(lab.gw, "pop1")
    assert left["ifindex"] == index
    assert {a["local"] for a in left["addr_info"]} >= {"10.255.0.1", "fd00:255::1", "10.255.9.1"}
    restarted(gw, accounting, config)
    within(3, "it has a carrier again", lambda: "LOWER_UP" in device(lab.gw, "pop1")["flags"])
    assert device(lab.gw, "pop1")["ifindex"] == index
    for ends in talks:
        talk(*ends, size=20_000)
    # The configuration of the predecessor had another name and another address.
    gw.kill()
    changed = config.replace('device = "pop1"', 'device = "tun-a"').replace("10.255.0.1/30", "10.255.0.1/29")
    restarted(gw, accounting, changed)
    within(3, "the device of the other name", lambda: is_ready(lab.gw, "tun-a"))
    within(3, "the old one is gone", lambda: device(lab.gw, "pop1") is None)
    assert lab.gw.ping(FAR_END[4]) >= 4
    # A reload changes addresses, and those that somebody else has added stay.
    lab.gw.ip("addr add 10.255.9.1/32 dev tun-a")
    gw.reload(changed.replace("10.255.0.1/29", "10.255.0.1/30"))
    within(3, "the address has changed", lambda: {
        (a["local"], a["prefixlen"]) for a in device(lab.gw, "tun-a")["addr_info"] if a["family"] == "inet"
    } == {("10.255.0.1", 30), ("10.255.9.1", 32)})
    # Whoever deletes it or takes it down gets it back.
    lab.gw.ip("link set tun-a down")
    within(3, "up again", lambda: "UP" in device(lab.gw, "tun-a")["flags"])
    lab.gw.ip("link del tun-a")
    within(3, "made again", lambda: is_ready(lab.gw, "tun-a"))
    assert lab.gw.ping(FAR_END[6]) >= 4
    gw.reload(config.replace('device = "pop1"\n', ""))
    within(3, "no tunnel has it", lambda: device(lab.gw, "tun-a") is None)
    gw.reload(config)
    within(3, "it is back", lambda: is_ready(lab.gw, "pop1"))
    gw.stop()
    assert device(lab.gw, "pop1") is None, "unload leaves nothing"


def test_a_device_of_somebody_else_is_left_alone(gw_changed, lab):
    lab.gw.ip("tuntap add mode tun name taken")
    gw = gw_changed(gateway_config("ipip", 4, device="taken", addresses=["10.255.0.1/30"]))
    within(3, "a problem", lambda: (tunnels(gw)["pop1"]["device"]["problem"] or "").startswith("there is a device taken"))
    assert device(lab.gw, "taken")["addr_info"] == []
    lab.gw.ip("link del taken")
    within(3, "no problem", lambda: tunnels(gw)["pop1"]["device"]["problem"] is None)
    assert "10.255.0.1" in str(device(lab.gw, "taken"))


def test_the_carrier_is_the_far_ends_liveness(gw_changed, far, lab):
    gw = both_ends(gw_changed, far, lab, probe_interval=50)
    within(3, "the far end answers", lambda: tunnels(gw)["pop1"]["rtt_us"] is not None)
    far.stop()
    within(3, "no carrier", lambda: "NO-CARRIER" in device(lab.gw, "pop1")["flags"])
    kind, _, theirs = keys_of("ipip")
    far.use(far.config(kind, 4, **theirs, **THEIRS, probe_interval=50))
    within(5, "a carrier", lambda: "LOWER_UP" in device(lab.gw, "pop1")["flags"])
    # Without probes: at twenty a second from either end the counters of device and gateway are never read of one moment.
    both_ends(gw_changed, far, lab)


def test_a_peer_has_so_much_of_a_worker(gw_changed, far, lab):
    gw = both_ends(gw_changed, far, lab, device_rate=20)
    got = lab.inet.ping(NEAR_END[4], count=60, interval=0.001)
    dropped = sum(n for (_, reason), n in gw.drops().items() if reason == "tunnel-local-rate")
    # A burst of ten and what comes while they go; membership reports of the far kernel count as well.
    assert 8 <= got < 40 and dropped >= 20, (got, dropped)


def test_routes_of_the_kernel_by_the_device_lead_into_the_tunnel(gw_changed, far, lab):
    """Of transit, by XDP, and beside another tunnel."""
    second = tunnel("pop2", "gre", 4, key=9, device="pop2", addresses=["10.255.1.1/30"])
    gw = both_ends(gw_changed, far, lab, extra=second)
    config = gw.running
    gw.reload(config.replace(to_far("pop1"), ""))
    assert lab.lan1.ping(FAR[4], count=1, wait=1) == 0, "no route leads there"
    lab.gw.ip("route add 10.77.0.0/24 dev pop1 proto bgp")
    lab.gw.ip("route add fd77::/64 via fd00:255::2 dev pop1 proto bgp")
    rows = {r["destination"]: r for r in gw.ctl("routes")["routes"]}
    assert rows["10.77.0.0/24"]["protocol"] == "bgp", rows
    for family in (4, 6):
        assert lab.lan1.ping(FAR[family]) >= 4
        sent = tunnels(gw)["pop1"]["tx_packets"]
        assert iperf(lab.lan1, far.site, FAR[family], seconds=1)["mbit"] > 20
        assert tunnels(gw)["pop1"]["tx_packets"] > sent + 100
    lab.gw.ip("route replace 10.77.0.0/24 dev pop2 proto bgp")
    within(2, "the route is another", lambda: "pop2" in json.dumps(
        next(r for r in gw.ctl("routes")["routes"] if r["destination"] == "10.77.0.0/24")))
    lab.gw.ip("route del 10.77.0.0/24")
    lab.gw.ip("route del fd77::/64")


@pytest.mark.parametrize(("kind", "outer", "other"), [("gre", 4, "bird"), ("esp", 6, "bird"), ("esp", 4, "frr")], ids=str)
def test_bgp_through_the_tunnel(gw_changed, far, lab, accounting, daemons, kind, outer, other):
    """What BIRD or FRR announces through the tunnel FRR puts into the kernel's table, and transit goes by it."""
    gw = both_ends(gw_changed, far, lab, kind, outer)
    config = gw.running.replace(to_far("pop1"), "")
    gw.reload(config)
    FrrBgp(daemons, lab.gw, FAR_END, BRANCH_NET)
    neighbor = FrrBgp(daemons, lab.inet, NEAR_END, FAR_NET, far=True) if other == "frr" else BirdBgp(daemons, lab.inet, FAR_END, NEAR_END, FAR_NET)
    routes = lambda: {r["destination"]: r for r in gw.ctl("routes")["routes"] if r["protocol"] == "bgp"}
    within(15, "routes by BGP", lambda: set(routes()) == set(FAR_NET.values()), daemons.tail)
    within(5, "the other way too", lambda: all(neighbor.has(net) for net in BRANCH_NET.values()), daemons.tail)
    for family in (4, 6):
        within(3, "it is reached", lambda f=family: lab.lan1.ping(FAR[f], count=1) == 1)
        sent = gw.ports()["0"]["fast"]
        assert lab.lan1.ping(FAR[family], count=10) >= 9
        if kind == "gre":
            assert gw.ports()["0"]["fast"] > sent, "by XDP"
    # Without the daemon the device has no carrier, and FRR gives its neighbors up until it is there again.
    gw.kill()
    restarted(gw, accounting, config)
    within(15, "routes by BGP again", lambda: set(routes()) == set(FAR_NET.values()), daemons.tail)
    within(3, "it is reached again", lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1)
    neighbor.withdraw(4)
    within(5, "it is withdrawn", lambda: FAR_NET[4] not in routes(), daemons.tail)


def test_routes_of_the_file_are_in_the_kernels_table(gw_changed, far, lab, accounting):
    """The machine itself goes by them, from addresses of its LAN too; hosts beyond the tunnel reach it there."""
    gw = both_ends(gw_changed, far, lab)
    config = gw.running
    listed = lambda: [lab.gw.ip(f"-{f} route show proto 91").stdout for f in (4, 6)]
    within(3, "both are there", lambda: all(f"{FAR_NET[f]} dev pop1" in listed()[i] for i, f in enumerate((4, 6))))
    for family in (4, 6):
        assert lab.gw.ping(FAR[family]) >= 4, "a host behind the far end"
        lan = {4: "192.0.2.1", 6: "2001:db8:1::1"}[family]
        assert far.site.ping(lan) == 5, "from there the gateway's address in its LAN"
    # Whoever removes them, or takes the device for another's, has them back.
    for family in (4, 6):
        lab.gw.ip(f"-{family} route flush proto 91")
    assert listed() == ["", ""]
    within(10, "both are back", lambda: all(f"{FAR_NET[f]} dev pop1" in listed()[i] for i, f in enumerate((4, 6))))
    lab.gw.ip("link set pop1 alias another")
    lab.gw.ip("link set pop1 down")
    within(3, "up again", lambda: "UP" in device(lab.gw, "pop1")["flags"])
    assert "alias sag-vcpe tunnel pop1" in lab.gw.ip("link show pop1").stdout
    within(3, "its routes, too", lambda: all(f"{FAR_NET[f]} dev pop1" in listed()[i] for i, f in enumerate((4, 6))))
    gw.kill()
    assert all(FAR_NET[f] in listed()[i] for i, f in enumerate((4, 6))), "they stay without the daemon"
    # What the predecessor has left goes if it is not in the file any more.
    changed = config.replace(FAR_NET[4], "10.66.0.0/24")
    restarted(gw, accounting, changed)
    within(3, "another one", lambda: "10.66.0.0/24 dev pop1" in listed()[0] and FAR_NET[4] not in listed()[0])
    gw.reload(changed.replace("[dataplane]\n", "[dataplane]\nkernel_routes = false\n", 1))
    within(3, "none", lambda: listed() == ["", ""])
    gw.reload(config)
    within(3, "back", lambda: all(listed()))
    gw.stop()
    assert listed() == ["", ""], "unload leaves nothing"


def all_sessions(frr):
    """Neighbors of FRR: state, and how often they have come up."""
    peers = frr.show("bgpd", "bgp ipv4 unicast summary").get("peers", {}) | frr.show("bgpd", "bgp ipv6 unicast summary").get("peers", {})
    return {address: (p.get("state"), p.get("connectionsEstablished")) for address, p in peers.items()}


def test_routing_sessions_survive_the_daemon(gw_changed, far, lab, accounting, daemons):
    """With a service manager that keeps the device open, the carrier does not go, and neither sessions nor routes do."""
    gw = both_ends(gw_changed, far, lab, "esp", 4)
    config = gw.running.replace(to_far("pop1"), "")
    gw.stop()
    manager = ServiceManager(gw, lab.run_dir)
    try:
        accounting.close()
        manager.start(config)
        within(3, "the device is there", lambda: is_ready(lab.gw, "pop1"))
        within(2, "and kept", lambda: manager.names() == ["pop1"])
        frr = FrrBgp(daemons, lab.gw, FAR_END, BRANCH_NET)
        bird = BirdBgp(daemons, lab.inet, FAR_END, NEAR_END, FAR_NET)
        routes = lambda: [lab.gw.ip(f"-{f} route show {FAR_NET[f]} proto bgp").stdout for f in (4, 6)]
        up = dict.fromkeys(FAR_END.values(), ("Established", 1))
        within(15, "both sessions", lambda: all_sessions(frr) == up and all(routes()), lambda: f"{all_sessions(frr)}{daemons.tail()}")
        before = device(lab.gw, "pop1")
        manager.kill()
        time.sleep(0.3)
        assert "LOWER_UP" in device(lab.gw, "pop1")["flags"] and all(routes()), "nobody runs"
        manager.start(config)
        for family in (4, 6):
            within(5, "transit by the learned routes", lambda f=family: lab.lan1.ping(FAR[f], count=1, wait=1) == 1, gw.tail)
        after = device(lab.gw, "pop1")
        assert (after["ifindex"], after["flags"]) == (before["ifindex"], before["flags"])
        assert manager.names() == ["pop1"] and all(routes())
        # What is announced now comes by the same sessions.
        bird.show("disable net4")
        within(5, "it is withdrawn", lambda: not routes()[0], daemons.tail)
        assert all_sessions(frr) == up, f"{all_sessions(frr)}{daemons.tail()}"
        # What is not wanted any more is let go, under the next one as well.
        gw.reload(config.replace('device = "pop1"\n', ""))
        within(3, "the device is gone", lambda: device(lab.gw, "pop1") is None)
        assert manager.names() == []
        gw.reload(config)
        within(3, "it is back", lambda: is_ready(lab.gw, "pop1") and manager.names() == ["pop1"])
        manager.kill()
        manager.start(config.replace('device = "pop1"', 'device = "other"'))
        within(3, "another one", lambda: is_ready(lab.gw, "other") and device(lab.gw, "pop1") is None)
        within(2, "and kept instead", lambda: manager.names() == ["other"])
    finally:
        manager.kill()
        manager.close()
