"""VRFs: two LANs with the same networks and the same hosts, which share a line to the Internet."""

import json
import socket
import struct

import pytest

from harness.lab import Addresses as A
from harness.nat import forward, nat_config, seen_as, silent, table, talk
from harness.port_counters import restarted
from harness.tunnels import FAR, FAR_NET, LOCAL, REMOTE, has_kernel, tunnel
from harness.waiting import within

pytestmark = pytest.mark.sag

HOST, OWN = "10.99.0.5", "10.99.0.1"
HOST6, OWN6 = "fd99::5", "fd99::1"
OUTSIDE6 = {"a": "2001:db8:f1::/64", "b": "2001:db8:f2::/64"}
SERVER, WAN = A.INET[4], A.GW_WAN[4]


def leak(vrf):
    """The VRF's way to the Internet: the WAN port, which is in the default VRF."""
    routes = [("0.0.0.0/0", A.WAN_ROUTER[4]), ("::/0", A.WAN_ROUTER[6])]
    return "".join(table("route", vrf=vrf, destination=to, next_hop=via, port="1") for to, via in routes)


def vrf(name, number=None):
    return f'\n[[vrf]]\nname = "{name}"\n' + (f"table = {number}\n" if number else "")


def config(first="a", routes_of=None):
    """Port 0 in the VRF `first`, port 3 in b, the others in the default one. `routes_of`: the kernel's table that has the
    routes of the first."""
    names = [first, "b"]
    text = nat_config(
        *(vrf(name, routes_of if name == first else None) for name in names),
        *(leak(name) for name in names if not routes_of or name != first),
        *(forward(f"web-{name}", "tcp", f"800{n}", (HOST, "80"), vrf=name) for n, name in enumerate(names)),
        *(
            table("static_nat", id=f"six-{name}", vrf=name, internal="fd99::/64", external=OUTSIDE6[other])
            for name, other in zip(names, OUTSIDE6, strict=True)
        ),
    )
    for device, name in zip(("lan-a", "lan-b"), names, strict=True):
        text = text.replace(f'device = "{device}"\n', f'device = "{device}"\nvrf = "{name}"\n')
    return text


@pytest.fixture(scope="module")
def overlapping(lab, hidden):
    """Hosts of the same address on both LANs, and the gateway's equal addresses."""
    for device, host in (("lan-a", lab.lan1), ("lan-b", lab.lan2)):
        for own, address, length in ((OWN, HOST, 24), (OWN6, HOST6, 64)):
            lab.gw.ip(f"addr add {own}/{length} dev {device}")
            host.ip(f"addr add {address}/{length} dev eth0")
    for outside in OUTSIDE6.values():
        lab.wan.ip(f"-6 route add {outside} via {A.GW_WAN[6]}")
    return lab


@pytest.fixture
def gw(gw_cleared, overlapping):
    return gw_cleared(config())


def hosts(lab):
    return [lab.lan1, lab.lan2]


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_the_same_five_tuple_from_both(gw, lab, peers, kind):
    """Each has a port of its own outside, and its own answers; XDP forwards them."""
    before = gw.status()["fastpath_packets"]
    if kind == "udp":
        server = peers.udp(lab.inet, SERVER, 5600)
        clients = [peers.udp(host, HOST, 5601) for host in hosts(lab)]
        seen = [[seen_as(c, server, (SERVER, 5600), b"%d %d" % (n, i)) for i, c in enumerate(clients)] for n in range(5)]
        ports = seen[0]
        assert all(again == ports for again in seen)
    else:
        listener = peers.listen(lab.inet, SERVER, 5610)
        ports = []
        for host in hosts(lab):
            client = peers.connect(host, (SERVER, 5610), source=(HOST, 5611))
            accepted, peer = peers.accept(listener)
            ports.append(peer)
            talk(client, accepted, 50_000)
    assert {address for address, _ in ports} == {WAN} and len(set(ports)) == 2
    assert gw.status()["fastpath_packets"] >= before + 8
    for name, port in zip("ab", ports, strict=True):
        mine = gw.ctl("sessions", "--vrf", name, "--proto", kind)["sessions"]
        assert [(s["src"], s["nat_sport"], s["vrf"], s["to_vrf"]) for s in mine] == [(HOST, port[1], name, None)]
        held = gw.ctl("nat", "bindings", "--vrf", name, "--proto", kind)["bindings"]
        assert [(b["inside"], b["outside_port"], b["vrf"]) for b in held] == [(HOST, port[1], name)]


def test_pings_and_fragments_and_path_mtu(gw, lab, peers):
    for host in hosts(lab):
        assert host.ping(SERVER, count=3, options=["-I", HOST]) == 3
    server = peers.udp(lab.inet, SERVER, 5620)
    clients = [peers.udp(host, HOST, 5621) for host in hosts(lab)]
    for n, client in enumerate(clients * 2):
        seen_as(client, server, (SERVER, 5620), b"%d" % n * 4000)
    # The provider's router says that 1,400 bytes fit: to the host that has sent too much.
    for host in hosts(lab):
        big = peers.udp(host, HOST, 5622)
        big.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
        big.connect((A.NARROW[4], 9))
        with pytest.raises(OSError):
            for _ in range(50):
                big.send(b"x" * 1460)
                silent(big, 0.05)
        assert big.getsockopt(socket.IPPROTO_IP, 14) == 1400  # IP_MTU
        host.ip("route flush cache")


def test_forwards_to_both(gw, lab, peers):
    for n, host in enumerate(hosts(lab)):
        listener = peers.listen(host, HOST, 80)
        client = peers.connect(lab.inet, (WAN, 8000 + n))
        accepted, peer = peers.accept(listener)
        assert peer[0] == SERVER
        talk(client, accepted, 50_000)


def test_prefixes_of_ipv6(gw, lab, peers):
    """Equal networks inside, each known by another one outside, in both directions."""
    server = peers.udp(lab.inet, A.INET[6], 5630)
    clients = [peers.udp(host, HOST6, 5631) for host in hosts(lab)]
    for n in range(3):
        for client, outside in zip(clients, OUTSIDE6.values(), strict=True):
            client.sendto(b"%d" % n, (A.INET[6], 5630))
            got, peer = server.recvfrom(100)
            assert got == b"%d" % n and peer[0].startswith(outside.split("::")[0])
            server.sendto(b"re", peer[:2])
            assert client.recvfrom(100)[0] == b"re"


def test_nothing_crosses(gw, lab, peers):
    """Neither from LAN to LAN, nor to the gateway's addresses of another VRF, nor by external addresses."""
    assert lab.lan2.ping(A.GW_LAN_B[4], count=1) == 1
    for address in (A.LAN2[4], A.GW_LAN_B[4], A.GW_EXPRESS[4]):
        assert lab.lan1.ping(address, count=1, wait=1) == 0
    peers.listen(lab.lan2, HOST, 80)
    with pytest.raises(OSError):
        peers.connect(lab.lan1, (WAN, 8001), source=(HOST, 0), timeout=0.5)
    # Equal hosts of one VRF and another do not hear each other.
    other = peers.udp(lab.lan2, HOST, 5640)
    peers.udp(lab.lan1, A.LAN1[4], 0).sendto(b"x", (HOST, 5640))
    assert silent(other, 0.2)


def test_a_restart_and_a_port_that_moves(gw, lab, peers, gateway, accounting):
    server = peers.udp(lab.inet, SERVER, 5650)
    clients = [peers.udp(host, HOST, 5651) for host in hosts(lab)]
    ports = [seen_as(c, server, (SERVER, 5650)) for c in clients]
    gateway.kill()
    restarted(gateway, accounting, config())
    assert [seen_as(c, server, (SERVER, 5650)) for c in clients] == ports, "sessions of VRFs outlive the daemon"
    # In another VRF the host is another one; the session of the old one is nobody's.
    gateway.reload(config("c"))
    # Until a worker has looked at the session again, its packets may go by the old action.
    server.sendto(b"late", ports[0])
    while not silent(clients[0], 0.2):
        server.sendto(b"late", ports[0])
    assert seen_as(clients[0], server, (SERVER, 5650)) != ports[0]
    assert seen_as(clients[1], server, (SERVER, 5650)) == ports[1]
    assert [s["vrf"] for s in gateway.ctl("sessions", "--vrf", "c", "--nat")["sessions"]] == ["c"]


def test_the_nat_log_and_explain_name_the_vrf(gw, lab, peers, gateway):
    log = lab.run_dir / "vrf-nat.log"
    gateway.reload(config() + table("nat", log="sessions", log_file=str(log)))
    server = peers.udp(lab.inet, SERVER, 5670)
    clients = [peers.udp(host, HOST, 5671) for host in hosts(lab)]
    ports = [seen_as(c, server, (SERVER, 5670))[1] for c in clients]

    def records():
        made = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return sorted((r["vrf"], r["to_vrf"], r["src"], r["nat_sport"]) for r in made if r.get("dport") == 5670)

    want = sorted((name, None, HOST, port) for name, port in zip("ab", ports, strict=True))
    within(5, "records of both sessions", lambda: records() == want)
    made = ["--src", HOST, "--dst", SERVER, "--proto", "udp", "--dport", "5670"]
    told = gw.ctl("explain", "--vrf", "b", *made)
    assert (told["verdict"], told["vrf"], told["to_vrf"], told["out_port"]) == ("forward", "b", None, "1")


@pytest.mark.parametrize("family", [4, 6])
def test_rules_of_a_vrf(gw, lab, peers, gateway, family):
    """A rule that names a VRF refuses what comes from there, of flows that XDP forwards as well."""
    everywhere = "0.0.0.0/0" if family == 4 else "::/0"
    server = peers.udp(lab.inet, A.INET[family], 5680)
    clients = [peers.udp(host, (HOST, HOST6)[family == 6], 5681) for host in hosts(lab)]

    def heard(client):
        client.sendto(b"?", (A.INET[family], 5680))
        return not silent(server, 0.2)

    for _ in range(3):
        assert [heard(c) for c in clients] == [True, True]
    rule = {"direction": "out", "type": "WAN", "policy": "drop", "ip_protocol": "udp", "source_cidr": everywhere}
    rule |= {"dest_cidr": everywhere, "dest_port_range": "5680/5680", "vrf": "a"}
    text = table("acl", id="x") + table("acl.rule", id="a-only", **rule)
    gateway.reload(config() + text)
    # Until a worker has looked at the session again, its packets may go by the old action.
    within(5, "the end of a's flow", lambda: not heard(clients[0]))
    assert [heard(c) for c in clients * 2] == [False, True] * 2
    [shown] = gw.ctl("acl")["acls"][0]["rules"]
    assert shown["vrf"] == "a" and shown["hits"] >= 2


INSIDE = {4: "10.255.0.{}/30", 6: "fd00:255::{}/64"}


@pytest.fixture
def branches(lab):
    """A VXLAN device of the kernel for each VRF, with the same addresses."""
    why = has_kernel(lab.inet, "vxlan id 1 dstport 4789 local 192.0.2.1 remote 192.0.2.2")
    if why:
        pytest.skip(f"this kernel has no vxlan device: {why}")
    devices = {}
    for name, vni in (("a", 100), ("b", 200)):
        dev = devices[name] = f"tun-{name}"
        lab.inet.ip(f"link add {dev} type vxlan id {vni} dstport 4789 local {REMOTE[4]} remote {LOCAL[4]}")
        lines = [f"link set {dev} up"]
        for family, net in ((4, "10.99.0.0/24"), (6, "fd99::/64")):
            via = INSIDE[family].format(1).split("/")[0]
            nodad = "nodad" if family == 6 else ""
            lines += [f"addr add {INSIDE[family].format(2)} dev {dev} {nodad}", f"addr add {FAR[family]} dev {dev} {nodad}"]
            lines.append(f"route add {net} via {via} dev {dev} metric {vni}")
        lab.inet.batch("\n".join(lines) + "\n")
    yield devices
    for dev in devices.values():
        lab.inet.ip(f"link del {dev}")


@pytest.mark.parametrize("family", [4, 6])
def test_tunnels_of_vrfs(gw, lab, peers, gateway, branches, family):
    """The same hosts on both ends of two tunnels, of which each VRF has one."""
    text = config()
    for name, vni in (("a", 100), ("b", 200)):
        addresses = [net.format(1) for net in INSIDE.values()]
        text += tunnel(f"to-{name}", "vxlan", 4, vni=vni, vrf=name, addresses=addresses)
        text += "".join(table("route", vrf=name, destination=net, tunnel=f"to-{name}") for net in FAR_NET.values())
    gateway.reload(text)
    host = (HOST, HOST6)[family == 6]
    clients = [peers.udp(ns, host, 5690, timeout=1.0) for ns in hosts(lab)]
    servers = []
    for dev in branches.values():
        far = peers.udp(lab.inet, timeout=1.0, address=FAR[family])
        servers.append(far)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, dev.encode())
    before = gw.status()["fastpath_packets"]

    def echoed(client, far, data):
        client.sendto(data, (FAR[family], far.getsockname()[1]))
        try:
            got, peer = received(far, data)
            assert peer[:2] == (host, 5690)
            far.sendto(got, peer)
            return received(client, data)[0] == data
        except TimeoutError:
            return False

    def received(sock, data):
        """That datagram; what was sent before and has come late is passed over."""
        while True:
            got, peer = sock.recvfrom(100)
            if got == data:
                return got, peer

    for n, (client, far) in enumerate(zip(clients, servers, strict=True)):
        # The first packets wait for the Ethernet addresses of both ends of the tunnel.
        within(5, "an answer through the tunnel", lambda c=client, f=far, n=n: echoed(c, f, b"first %d" % n))
    for n in range(4):
        for client, far in zip(clients, servers, strict=True):
            assert echoed(client, far, b"%d" % n)
    assert gw.status()["fastpath_packets"] >= before + 8
    for name in "ab":
        mine = gw.ctl("sessions", "--vrf", name, "--proto", "udp", "--sport", "5690", "--dst", FAR[family])["sessions"]
        assert [(s["src"], s["vrf"], s["to_vrf"]) for s in mine] == [(host, name, name)]


@pytest.mark.parametrize("family", [4, 6])
def test_a_table_of_the_kernel(gw, lab, peers, gateway, family):
    """Its routes are the VRF's as they come and go: the way out by the WAN port, and what is refused."""
    number, ip = 77, lab.gw.ip
    gateway.reload(config(routes_of=number))
    server = peers.udp(lab.inet, A.INET[family], 5700)
    clients = [peers.udp(host, (HOST, HOST6)[family == 6], 5701) for host in hosts(lab)]

    def heard(client):
        client.sendto(b"?", (A.INET[family], 5700))
        return not silent(server, 0.2)

    routes = lambda: {r["destination"]: r["type"] for r in gw.ctl("routes", A.INET[family])["routes"] if r["vrf"] == "a"}
    any_network, its = ("0.0.0.0/0", "::/0")[family == 6], f"{A.INET[family]}/{(32, 128)[family == 6]}"
    try:
        assert [heard(c) for c in clients] == [False, True]
        ip(f"-{family} route add default via {A.WAN_ROUTER[family]} dev wan table {number}")
        within(5, "the way out", lambda: heard(clients[0]))
        assert routes() == {any_network: "unicast"}
        ip(f"-{family} route add blackhole {its} table {number}")
        within(5, "the end of the flow", lambda: not heard(clients[0]))
        assert [heard(c) for c in clients] == [False, True], "the other VRF has no such table"
        ip(f"-{family} route del blackhole {its} table {number}")
        within(5, "the way out again", lambda: heard(clients[0]))
        # Another table is nobody's.
        ip(f"-{family} route add blackhole {its} table {number + 1}")
        assert [heard(c) for c in clients] == [True, True] and routes() == {any_network: "unicast"}
    finally:
        for n in (number, number + 1):
            lab.gw.run(["ip", f"-{family}", "route", "flush", "table", str(n)], check=False)


def test_ports_on_request(gw, lab, peers, gateway):
    """Hosts of each VRF ask for a port at the gateway's address there (NAT-PMP), and the Internet reaches the one that has it."""
    gateway.reload(config().replace('role = "lan"\n', 'role = "lan"\nport_mapping = true\n'))
    outside = []
    for host in hosts(lab):
        asker = peers.udp(host, HOST, 5720, timeout=1.0)
        asker.connect((OWN, 5351))

        def asked(asker=asker):
            try:
                asker.send(struct.pack("!BBHHHI", 0, 1, 0, 5710, 5710, 120))
                answer = asker.recv(100)
            except (ConnectionRefusedError, TimeoutError):
                return False  # the socket is opened by the next round of housekeeping
            assert answer[:4] == b"\0\x81\0\0", answer
            outside.append(struct.unpack_from("!H", answer, 10)[0])
            return True

        within(5, "a port", asked)
    assert len(set(outside)) == 2
    mappings = gw.ctl("nat", "mappings")["mappings"]
    assert sorted((m["vrf"], m["inside"], m["outside_port"]) for m in mappings) == [("a", HOST, outside[0]), ("b", HOST, outside[1])]
    servers = [peers.udp(host, HOST, 5710) for host in hosts(lab)]
    client = peers.udp(lab.inet, SERVER, 5711)
    for port, server in zip(outside, servers, strict=True):
        client.sendto(b"to %d" % port, (WAN, port))
        got, peer = server.recvfrom(100)
        assert (got, peer) == (b"to %d" % port, (SERVER, 5711))
        server.sendto(b"re", peer)
        assert client.recvfrom(100) == (b"re", (WAN, port))
