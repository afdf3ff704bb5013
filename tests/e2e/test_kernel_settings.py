"""Settings of the kernel that a router's ports need: set while the gateway is loaded, put back when it is not."""

import pytest

from harness.config import lab_config
from harness.lab import Addresses as A
from harness.nat import nat_config
from harness.waiting import within
from harness.wire import (
    Ether,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)

pytestmark = pytest.mark.sag

# What there is before the gateway.
HOST = {
    "net.ipv6.conf.lan-a.accept_ra": 1,
    "net.ipv6.conf.wan.accept_ra": 1,
    "net.ipv4.conf.lan-a.rp_filter": 1,
    "net.ipv4.conf.wan.forwarding": 1,
    "net.ipv4.conf.all.accept_redirects": 1,
}
ROUTER = {
    "net.ipv6.conf.lan-a.accept_ra": 0,
    "net.ipv6.conf.wan.accept_ra": 2,
    "net.ipv6.conf.lan-a.forwarding": 1,
    "net.ipv4.conf.lan-a.rp_filter": 2,
    "net.ipv4.conf.wan.forwarding": 0,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv6.conf.wan.accept_redirects": 0,
}


def sysctl(lab, names):
    values = lab.gw.run(["sysctl", "-n", *names]).stdout.split()
    return dict(zip(names, map(int, values), strict=True))


def put(lab, values):
    lab.gw.run(["sysctl", "-q", "-w", *(f"{k}={v}" for k, v in values.items())])


@pytest.fixture
def as_a_host(gateway, lab):
    """The gateway's machine as a distribution has it, and no gateway loaded. `lab.sh` switches forwarding at a start."""
    gateway.stop()
    before = sysctl(lab, [*HOST])
    put(lab, HOST)
    yield sysctl(lab, [*{**ROUTER, **HOST}])
    gateway.stop()
    put(lab, before)


def are_set(lab):
    within(3, "the settings are a router's", lambda: sysctl(lab, [*ROUTER]) == ROUTER)


def test_settings_are_put_back_as_they_were_before_the_first_start(as_a_host, gw_with, gateway, lab):
    """A daemon that is killed leaves them, its successor does not take them for the host's; `unload` puts them back."""
    gw = gw_with(lab_config())
    are_set(lab)
    rows = {r["name"]: r for r in gw.ports()["0"]["kernel_settings"]}
    shown = rows["net.ipv4.conf.lan-a.rp_filter"]
    assert (shown["value"], shown["wanted"], shown["before"]) == (2, 2, 1)
    assert not gw.status()["warnings"], gw.status()["warnings"]
    gateway.kill()
    assert sysctl(lab, [*ROUTER]) == ROUTER
    gateway.start(lab_config())
    are_set(lab)
    # Somebody switches forwarding on for all devices, as a routing daemon does.
    put(lab, {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1})
    are_set(lab)
    # The kernel announces it: no round needs to be waited for.
    within(1.5, "what is around the gateway is named", lambda: "net.ipv6.conf.all.forwarding" in str(gw.status()["warnings"]))
    put(lab, {"net.ipv6.conf.all.forwarding": 0})
    are_set(lab)
    within(1.5, "it is no longer named", lambda: not gw.status()["warnings"])
    # A reload leaves everything to the administrator: put back at once.
    gateway.reload(lab_config(kernel_settings="keep"))
    within(3, "put back", lambda: sysctl(lab, ["net.ipv4.conf.lan-a.rp_filter"]) == {"net.ipv4.conf.lan-a.rp_filter": 1})
    gateway.reload(lab_config())
    are_set(lab)
    gateway.stop()
    assert sysctl(lab, [*as_a_host]) == as_a_host


def test_router_advertisements_and_the_router_flag(as_a_host, gw_with, lab, wire):
    """A host of the branch is no router of the gateway; the provider's is. The gateway's advertisements say router."""
    gw_with(nat_config())
    are_set(lab)
    advert = lambda ns, dev: (
        Ether(src=ns.mac(dev), dst="33:33:00:00:00:01")
        / IPv6(src="fe80::bad", dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=600)
        / ICMPv6NDOptSrcLLAddr(lladdr=ns.mac(dev))
        / ICMPv6NDOptPrefixInfo(prefix="2001:db8:bad::", prefixlen=64, validlifetime=600, preferredlifetime=600)
    )
    wire.sender(lab.lan1, "eth0").send(advert(lab.lan1, "eth0"))
    wire.sender(lab.wan, "gw").send(advert(lab.wan, "gw"))
    routes = lambda: lab.gw.ip("-6 route show default proto ra").stdout
    within(3, "the provider's router is learned", lambda: "dev wan" in routes())
    assert "lan-a" not in routes()
    lab.gw.ip("-6 route flush proto ra")

    heard = wire.sniffer(lab.lan1, "eth0")
    target = A.GW_LAN_A[6]
    ask = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a")) / IPv6(src=A.LAN1[6], dst=target, hlim=255)
    wire.sender(lab.lan1, "eth0").send(ask / ICMPv6ND_NS(tgt=target) / ICMPv6NDOptSrcLLAddr(lladdr=lab.lan1.mac("eth0")))
    answer = heard.until(lambda p: ICMPv6ND_NA in p and p[ICMPv6ND_NA].tgt == target)
    assert answer is not None and answer[ICMPv6ND_NA].R == 1
