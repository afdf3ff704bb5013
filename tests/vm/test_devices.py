"""What a LAN port may be, beside a virtio-net card in native mode: a card without native XDP, devices above a card, a veth that
takes no frames of XDP, partial checksums in generic mode. One start of the gateway for `auto`, one for each other mode."""

import contextlib
import re
import time

import pytest

from bed.site import ECHO_PORT, GATEWAY, GW_LAN, INET, LAN, LAN_MAC, connect, echoes
from bed.tagger import vlan
from harness.waiting import within

REFUSES = "takes no XDP redirects"
TAG = 10
CONFIG = "/etc/sag/vcpe.toml"
PREFIX = {4: f"{GW_LAN[4]}/26", 6: f"{GW_LAN[6]}/64"}

# What is made in the guest for each port device, and what takes it away.
# As many queues as the cards have: the packet memory is made for those of the start.
BOND = "ip link add upper numtxqueues 4 numrxqueues 4 type bond miimon 100 mode {}; ip link set lan down; ip link set lan master upper"
MAKE = {
    "card without native XDP": "ip link set spare up",
    "bond, active-backup": BOND.format("active-backup") + "; ip link set spare down; ip link set spare master upper",
    # The kernel runs the protocol only over cards that say how fast they are.
    "bond, 802.3ad": f"ethtool -s lan speed 1000 duplex full; {BOND.format('802.3ad')}",
    "VLAN device": f"ip link add upper link lan type vlan id {TAG}",
    "bridge": "ip link add upper type bridge; ip link set upper address {mac}; ip link set lan master upper",
    "macvlan": "ip link add upper link lan type macvlan mode bridge",
}
DEVICE = {"card without native XDP": "spare"}


def on(guest, device, state="up"):
    """Moves the branch's addresses to a device."""
    for family in (4, 6):
        guest.run(f"ip -{family} addr replace {PREFIX[family]} dev {device}{' nodad' if family == 6 else ''}")
    guest.run(f"ip link set {device} {state}")


def reload(guest, device, text=GATEWAY):
    """The LAN port is this device from now on."""
    guest.write(CONFIG, text.replace('device = "lan"', f'device = "{device}"'))
    guest.run("sagctl reload")
    port = lambda: rows(guest)["1"]
    within(30, f"{device} is the port", lambda: port()["device"] == device and port()["up"] and port()["xsk_mode"] != "none", port)


def rows(guest):
    return {port["name"]: port for port in guest.ctl("ports")["ports"]}


@pytest.fixture(scope="module")
def bare_lan(gateway, site):
    """The guest whose LAN card has no addresses, and nobody who gives it any."""
    # Devices come and go here, and so would what networkd does about them.
    gateway.run("systemctl stop systemd-networkd.socket systemd-networkd")
    gateway.run("ip addr flush dev lan; sysctl -qw net.ipv4.conf.all.arp_ignore=1")
    yield gateway
    gateway.run("sysctl -qw net.ipv4.conf.all.arp_ignore=0")
    on(gateway, "lan")
    gateway.write(CONFIG, GATEWAY)
    gateway.run("systemctl start systemd-networkd; systemctl restart sag-vcpe", timeout=240)


@contextlib.contextmanager
def branch_on(guest, site, kind):
    """A device of this kind above the LAN card, with the branch's addresses."""
    device = DEVICE.get(kind, "upper")
    with contextlib.ExitStack() as stack:
        if kind == "VLAN device":
            stack.enter_context(vlan(site.lan, "eth0", TAG, "vlan"))
            site.lan.batch(
                "link set vlan up\naddr flush dev br0\n"
                f"addr add {LAN[4]}/26 dev vlan\naddr add {LAN[6]}/64 dev vlan\n"
                f"route replace default via {GW_LAN[4]}\nroute replace ::/0 via {GW_LAN[6]}\n"
            )
            stack.callback(
                site.lan.batch,
                f"addr add {LAN[4]}/26 dev br0\naddr add {LAN[6]}/64 dev br0\nlink set vlan down\n"
                f"route replace default via {GW_LAN[4]}\nroute replace ::/0 via {GW_LAN[6]}\n",
            )
        guest.run(MAKE[kind].format(mac=LAN_MAC))
        stack.callback(guest.run, "ip link del upper 2>/dev/null; ip addr flush dev spare; ip link set lan up; ip link set spare down")
        on(guest, device)
        if "bond" in kind:
            guest.wait("! grep 'MII Status: down' /proc/net/bonding/upper", 20)
        forget_neighbors(site)
        yield device
    forget_neighbors(site)


def forget_neighbors(site):
    site.lan.batch("neigh flush all\n")


def forwards(guest, site, count=20):
    """Nothing is lost, by either family, in either direction, and a connection's bytes come back."""
    dropped = lambda: {name: port["dropped"] for name, port in rows(guest).items()}
    before = dropped()
    for family in (4, 6):
        assert site.lan.ping(INET[family], count=count, interval=0.05, wait=20) == count, guest.out("sagctl drops; sagctl ports")
        with connect(site.lan, family, (INET[family], ECHO_PORT)) as sock:
            for size in (1, 1400, 300_000):
                assert echoes(sock, bytes(size)), size
    assert site.wan.ping(LAN[6], count=count, interval=0.05, wait=20) == count
    assert dropped() == before, guest.out("sagctl drops")
    assert [port["tx_lost"] for port in rows(guest).values()] == [0, 0], rows(guest)


@pytest.mark.parametrize("kind", MAKE)
def test_a_port_in_auto_mode(bare_lan, site, kind, seen):
    """The program attaches in generic mode beside the native card, workers send to the port, nothing is lost."""
    guest = bare_lan
    with branch_on(guest, site, kind) as device:
        reload(guest, device)
        # The card that the port's device gets its frames from merges no segments; what it did before comes back.
        if device == "upper":
            within(10, "packets stay as they are", lambda: not merges(guest, "lan"))
        if "bond" in kind:
            # By what members send as they come up the branch's bridge learns another way to the bond for a moment.
            within(10, "settled", lambda: site.lan.ping(INET[4], count=5, wait=1) == 5)
        forwards(guest, site)
        lan, wan = rows(guest)["1"], rows(guest)["0"]
        assert (lan["xdp_mode"], wan["xdp_mode"]) == ("generic", "native")
        assert REFUSES in lan["capability"] and REFUSES not in wan["capability"], (lan, wan)
        if "active-backup" in kind:
            for active in ("spare", "lan"):
                guest.run(f"ip link set upper type bond active_slave {active}")
                within(5, f"by {active}", lambda: site.lan.ping(INET[4], count=1))
                forwards(guest, site, 5)
    seen[kind] = f"auto: XDP {lan['xdp_mode']}, nothing lost"


def test_the_kernels_vrf_device(bare_lan, site, seen):
    """A LAN card in a VRF device of the kernel: routes of the device's table are those of its VRF, as they come and go."""
    guest = bare_lan
    routers = {4: "198.51.100.1", 6: "2001:db8:100::1"}
    text = '[[vrf]]\nname = "shop"\n' + GATEWAY.replace('device = "lan"\n', 'device = "lan"\nvrf = "shop"\n')
    text = text.replace('id = "inside"\n', 'id = "inside"\nvrf = "shop"\n')
    guest.run("ip link add vrf-shop type vrf table 100; ip link set vrf-shop up; ip link set lan master vrf-shop")
    try:
        on(guest, "lan")
        for family, router in routers.items():
            guest.run(f"ip -{family} route add default via {router} dev wan table 100")
        forget_neighbors(site)
        reload(guest, "lan", text)
        for family in routers:
            assert site.lan.ping(INET[family], count=5, interval=0.05, wait=20) == 5, guest.out("sagctl drops; sagctl routes")
            with connect(site.lan, family, (INET[family], ECHO_PORT)) as sock:
                assert echoes(sock, bytes(300_000))
        destinations = [r["destination"] for r in guest.ctl("routes")["routes"] if r["vrf"] == "shop"]
        assert {"0.0.0.0/0", "::/0"} <= set(destinations), destinations
        for family in routers:
            guest.run(f"ip -{family} route del default table 100")
            within(10, "the end of the way out", lambda f=family: site.lan.ping(INET[f], count=1, wait=1) == 0)
    finally:
        guest.run("ip link del vrf-shop")
        on(guest, "lan")
        forget_neighbors(site)
    seen["VRF device"] = "routes by its table"


def merges(guest, card):
    """Offloads of a card that make longer packets of what arrives."""
    shown = guest.out(["ethtool", "-k", card])
    return [line for line in shown.splitlines() if re.match(r"(generic-receive-offload|rx-gro-hw): on", line)]


@contextlib.contextmanager
def inner_host(guest):
    """A host behind a veth pair, both in the guest: its address and the port's device. The far end has no GRO."""
    guest.run(
        "ip netns add host; ip link add near type veth peer name far netns host; ip link set near up\n"
        "ip -n host link set lo up; ip -n host link set far up\n"
        f"ip -n host addr add {LAN[4]}/26 dev far; ip -n host addr add {LAN[6]}/64 dev far nodad\n"
        f"ip -n host route add default via {GW_LAN[4]}; ip -n host -6 route add default via {GW_LAN[6]}\n"
        # As hosts of a wire: what a veth leaves to offloads, other tests have.
        "ip netns exec host ethtool -K far tx off tso off gso off gro off"
    )
    try:
        on(guest, "near")
        yield
    finally:
        guest.run("ip link del near; ip netns del host")


def pings(guest, to, count=20, more=""):
    """Answers to a host behind the veth pair."""
    said = guest.out(f"ip netns exec host ping -q -c {count} -i 0.02 -W 2 {more} {to}", check=False)
    return int(re.search(r"(\d+) received", said)[1])


def test_a_veth_whose_far_end_takes_no_redirects(bare_lan, kernel, seen):
    """Before Linux 6.3 the kernel does not say so in advance: the first frames are lost, counted and told, then workers send for
    a minute. Afterwards XDP tries again."""
    guest = bare_lan
    asks = kernel.version < (6, 3)
    with inner_host(guest):
        reload(guest, "near")
        port = lambda: rows(guest)["1"]
        warned = lambda: [w for w in guest.ctl("status")["warnings"] if "near has lost" in w]
        begin = time.monotonic()
        assert port()["xdp_mode"] == "native" and (REFUSES in port()["capability"]) != asks, port()
        if asks:
            pings(guest, INET[4])
            within(10, "workers send", lambda: REFUSES in port()["capability"], port)
            begin = time.monotonic()
            assert port()["tx_lost"] > 0 and "takes no XDP redirects" in warned()[0], (port(), warned())
        lost = port()["tx_lost"]
        for family in (4, 6):
            assert pings(guest, INET[family]) == 20
        assert port()["tx_lost"] == lost
        guest.run("ip netns exec host ethtool -K far gro on")
        within(75, "XDP sends", lambda: REFUSES not in port()["capability"], port)
        took = time.monotonic() - begin
        assert took > 55 if asks else took < 30, took
        before = rows(guest)["0"]["fast"]
        assert pings(guest, INET[6]) == 20 and port()["tx_lost"] == lost
        assert rows(guest)["0"]["fast"] - before >= 18, "XDP sends by the veth"
        # Any device loses what it cannot take: here the far end takes shorter frames than the port sends.
        guest.run("ip -n host link set far mtu 1300")
        assert pings(guest, INET[4], 5, "-s 1390 -M dont -W 1") == 0
        within(10, "counted", lambda: port()["tx_lost"] > lost and warned(), port)
    seen["veth without GRO"] = "left to workers for 60 s once frames were lost" if asks else "left to workers from the start"


def restart(guest, mode, ports=("lan",)):
    """The gateway in another mode, with these devices as LAN ports beside the WAN port."""
    head, tail = GATEWAY.split('[[port]]\nname = "1"')
    lans = [f'[[port]]\nname = "lan{i}"\ndevice = "{d}"\nrole = "lan"\n\n' for i, d in enumerate(ports)]
    rest = tail[tail.index("[[dnat]]") :]
    guest.write(CONFIG, head.replace("[dataplane]", f'[dataplane]\nmode = "{mode}"') + "".join(lans) + rest)
    guest.run("systemctl restart sag-vcpe", timeout=240)
    guest.wait("systemctl is-active sag-vcpe", 240)


def test_native_mode_is_refused_by_name(bare_lan, seen):
    """Each device says why it has none; the port that has native XDP works."""
    guest = bare_lan
    guest.run(
        "ip link add bond9 type bond; ip link add vlan9 link lan type vlan id 9; ip link add bridge9 type bridge\n"
        "ip link add macvlan9 link lan type macvlan\n"
        "for d in bond9 vlan9 bridge9 macvlan9 spare; do ip link set $d up; done"
    )
    devices = ("bond9", "vlan9", "bridge9", "macvlan9", "spare")
    try:
        restart(guest, "native", devices)
        found = rows(guest)
        assert found["0"]["xdp_mode"] == "native"
        for number, device in enumerate(devices):
            port = found[f"lan{number}"]
            why = "the bond's members" if device == "bond9" else "no native XDP"
            assert port["xdp_mode"] == "none" and why in port["capability"], port
    finally:
        guest.run("for d in vlan9 bridge9 macvlan9 bond9; do ip link del $d; done; ip link set spare down")
    seen["native"] = f"refused for {', '.join(d.rstrip('9') for d in devices)}"


def test_partial_checksums_of_virtio_in_generic_mode(bare_lan, site, seen):
    """The host around the guest leaves checksums to virtio (`guest_csum`), and in generic mode the driver hands them on."""
    guest = bare_lan
    restart(guest, "generic")
    on(guest, "lan")
    forget_neighbors(site)
    for family in (4, 6):
        assert site.lan.ping(INET[family], count=20, interval=0.05, wait=20) == 20
        with connect(site.lan, family, (INET[family], ECHO_PORT)) as sock:
            assert echoes(sock, bytes(300_000))
    found = rows(guest)
    assert {p["xdp_mode"] for p in found.values()} == {"generic"}
    assert any("completes partial checksums" in p["capability"] for p in found.values()), found
    seen["guest_csum"] = "generic: partial checksums completed"
    guest.run("ip addr flush dev lan")
