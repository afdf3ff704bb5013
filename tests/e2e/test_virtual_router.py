"""A virtual router of both families with Ethernet addresses of its own, by a call of the official SDK and the device's own
file: hosts learn and use it, XDP forwards for it, and another router takes it over."""

import json
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, api_names, cloud_of, pings, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.routers import Keepalived, Vrrp, program
from test_lan_services import solicit
from test_routing import routing

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

VIRTUAL = {4: "192.0.2.6", 6: "2001:db8:1::6"}
MAC = {4: "00:00:5e:00:01:06", 6: "00:00:5e:00:02:06"}


@pytest.fixture(scope="module")
def place(lab):
    return lab.run_dir / "routing"


@pytest.fixture(scope="module")
def branch(lab, gateway, place, tmp_path_factory):
    for name in ("keepalived", "dnsmasq"):
        program(name, f"/usr/sbin/{name}")
    # dnsmasq reads its files as another user, who cannot enter the folders of tests.
    open_place = Path(tempfile.mkdtemp(prefix="sag-lan-", dir="/run"))
    open_place.chmod(0o755)
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as cloud:
        gateway.ensure(api_names(lab_config()))
        cloud.start()
        sag, sn = cloud.gateway()
        agent = Agent(lab, cloud, sag, sn)
        agent.sections = (
            f'[routing]\ndir = "{place}"\nvirtual_mac = true\nvrrp_ipv6 = ["fe80::6/64", "{VIRTUAL[6]}/64"]\n'
            f'[lan]\ndir = "{open_place / sn}"\nadvertise = ["1"]\n'
        )
        agent.start()
        it = Branch(lab, cloud, agent, sag, sn)
        within(10, "first contact", it.in_force, agent.tail)
        lab.lan1.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1"])
        yield it
        agent.stop()
        lab.lan1.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=0"])
        lab.lan1.ip("-6 route flush proto ra", check=False)
        lab.lan1.ip("-6 addr flush dev eth0 dynamic", check=False)
    shutil.rmtree(open_place)


def has(lab, family):
    """Whether the device of the virtual router has the address."""
    rows = json.loads(lab.gw.out(["ip", "-j", "addr", "show", "dev", f"sag-vrrp{family}"], check=False) or "[]")
    return VIRTUAL[family] in {a.get("local") for row in rows for a in row.get("addr_info", [])}


def neighbor(lab, address):
    rows = json.loads(lab.lan1.out(["ip", "-j", "neigh", "show", address]))
    return next((row.get("lladdr") for row in rows), None)


def test_a_virtual_router_of_both_families(branch, place, daemons, lab, gateway):
    log = lambda: f"{branch.agent.tail(40)}\n{daemons.tail()}\n{routing(branch, place)}\n{lab.gw.out('ip addr')}"
    state = lambda: (routing(branch, place)["Vrrp"] or {}).get("State")
    branch.device("ModifySagHa", Mode="STATIC", PortName="1", VirtualIp=VIRTUAL[4])
    within(8, "the gateway is the router", lambda: state() == "MASTER" and has(lab, 4) and has(lab, 6), log)
    # Hosts know it by its own Ethernet addresses, whoever asks for whom.
    lab.flush_neighbours(lab.gw, lab.lan1)
    within(3, "hosts reach it", lambda: pings(lab.lan1, VIRTUAL[4]) and pings(lab.lan1, VIRTUAL[6]), log)
    for _ in range(3):
        lab.gw.ip("neigh flush dev lan-a")
        assert pings(lab.lan1, VIRTUAL[4])
    assert {f: neighbor(lab, VIRTUAL[f]) for f in (4, 6)} == MAC
    # The IPv6 router is advertised by its link-local address, and the port's own is not.
    def router():
        solicit(lab.lan1)
        return [r["gateway"] for r in json.loads(lab.lan1.out("ip -j -6 route show default proto ra".split()))]

    within(10, "hosts hear of it", lambda: router() == ["fe80::6"], log)
    # XDP forwards what comes to these Ethernet addresses.
    fast = lambda: gateway.ports()["1"]["fast"]
    for family, via in ((4, VIRTUAL[4]), (6, "fe80::6")):
        length = 32 if family == 4 else 128
        lab.lan1.ip(f"-{family} route add {A.INET[family]}/{length} via {via} dev eth0")
        try:
            within(3, "it forwards for them", lambda f=family: pings(lab.lan1, A.INET[f]), log)
            before = fast()
            assert lab.lan1.run(["ping", "-q", "-c", "20", "-i", "0.01", A.INET[family]]).returncode == 0
            assert fast() > before
        finally:
            lab.lan1.ip(f"-{family} route del {A.INET[family]}/{length}")
    assert neighbor(lab, "fe80::6") == MAC[6]
    # Another router takes both, and gives them back.
    other = Keepalived(daemons, lab.lan1, "eth0", [Vrrp(6, 4, False, [f"{VIRTUAL[4]}/32"])], 200)
    within(6, "both have moved", lambda: state() == "BACKUP" and not has(lab, 4) and not has(lab, 6), log)
    other.end(signal.SIGKILL)
    lab.lan1.run(["ip", "addr", "del", f"{VIRTUAL[4]}/32", "dev", "eth0"], check=False)
    within(8, "both are back", lambda: state() == "MASTER" and has(lab, 4) and has(lab, 6), log)
    within(5, "hosts reach it again", lambda: pings(lab.lan1, VIRTUAL[4]) and pings(lab.lan1, VIRTUAL[6]), log)
    assert {f: neighbor(lab, VIRTUAL[f]) for f in (4, 6)} == MAC
    # Undone by the opposite call; then the port advertises for itself.
    branch.device("ModifySagHa", Mode="NONE")
    within(5, "its devices are gone", lambda: "sag-vrrp" not in lab.gw.out("ip link"), log)
    within(10, "the port advertises", lambda: any(r != "fe80::6" for r in router()), log)
