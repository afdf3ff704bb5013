"""IPv6 of a provider: Kea and radvd on its router, dhcpcd run by the agent, hosts of two LANs that make their addresses out
of the delegated prefix, and traffic by XDP."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, api_names, cloud_of, whoami
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.routers import Daemons, program
from harness.traffic import http_server
from harness.waiting import within
from test_lan_services import solicit

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

OLD, NEW = "2001:db8:8000:", "2001:db8:9000:"
# Both LAN ports get a network: the first one and the last one.
NO_PING = "table ip6 no_ping { chain in { type filter hook prerouting priority raw; ip6 saddr LINE drop; }; }"
WAN6 = '[[ipv6.wan]]\nport = "0"\nprefix_length = 56\nlans = { "1" = 0, "4" = 255 }\n'


class Provider:
    """Its router: advertisements by radvd, addresses and prefixes by Kea."""

    def __init__(self, lab, daemons):
        self.lab, self.daemons, self.folder = lab, daemons, daemons.folder
        self.server = None
        (self.folder / "kea").mkdir()
        conf = self.folder / "radvd.conf"
        conf.write_text(
            "interface gw { AdvSendAdvert on; AdvManagedFlag on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;\n"
            "  prefix 2001:db8:100::/64 { AdvOnLink on; AdvAutonomous off; }; };\n"
        )
        conf.chmod(0o644)
        radvd = program("radvd", "/usr/sbin/radvd")
        daemons.start(lab.wan, "radvd", [radvd, "-n", "-C", conf, "-p", self.folder / "radvd.pid", "-m", "stderr", "-u", "root"])

    def serve(self, prefix, preferred=300, valid=600):
        """Prefixes of 56 bits out of this one of 48."""
        self.stop()
        pool = {"prefix": f"{prefix}:", "prefix-len": 48, "delegated-len": 56}
        subnet = {"subnet": "2001:db8:100::/64", "id": 1, "interface": "gw", "pools": [{"pool": "2001:db8:100::1000-2001:db8:100::1fff"}], "pd-pools": [pool]}
        kea = {
            "interfaces-config": {"interfaces": ["gw"]}, "lease-database": {"type": "memfile", "persist": False},
            "renew-timer": 2, "rebind-timer": 4, "preferred-lifetime": preferred, "valid-lifetime": valid, "subnet6": [subnet],
            "loggers": [{"name": "kea-dhcp6", "output_options": [{"output": "stdout"}], "severity": "INFO"}],
        }
        conf = self.folder / "kea.conf"
        conf.write_text(json.dumps({"Dhcp6": kea}))
        # It keeps its identifier in a place of its own.
        start = f'mount --bind {self.folder / "kea"} /var/lib/kea && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", start, "kea", program("kea-dhcp6", "/usr/sbin/kea-dhcp6"), "-c", conf]
        env = ["env", f"KEA_PIDFILE_DIR={self.folder}", f"KEA_LOCKFILE_DIR={self.folder}"]
        self.server = self.daemons.start(self.lab.wan, "kea", [*env, *command])

    def stop(self):
        if self.server is not None:
            self.daemons.end(self.server)
            self.server = None


@pytest.fixture(scope="module")
def provider(lab, tmp_path_factory):
    for name in ("dnsmasq", "dhcpcd", "radvd", "kea-dhcp6"):
        program(name, f"/usr/sbin/{name}", f"/sbin/{name}")
    daemons = Daemons(tmp_path_factory.mktemp("provider"))
    # The gateway's line has no address and no route yet, and learns from advertisements.
    lab.gw.ip("-6 addr flush dev wan scope global")
    lab.gw.ip("-6 route del default", check=False)
    lab.gw.run(["sysctl", "-qw", "net.ipv6.conf.wan.accept_ra=1", "net.ipv6.conf.wan.router_solicitations=3"])
    line = json.loads(lab.gw.out("ip -j -6 addr show dev wan scope link".split()))[0]["addr_info"][0]["local"]
    for prefix in (OLD, NEW):
        lab.wan.ip(f"-6 route add {prefix}:/48 via {line} dev gw")
    yield Provider(lab, daemons)
    daemons.close()
    for prefix in (OLD, NEW):
        lab.wan.ip(f"-6 route del {prefix}:/48")
    lab.gw.run(["sysctl", "-qw", "net.ipv6.conf.wan.accept_ra=0"])
    lab.gw.ip("-6 route flush default", check=False)
    lab.gw.ip("-6 addr flush dev wan scope global")
    lab.gw.ip(f"addr add {A.GW_WAN[6]}/64 dev wan")
    lab.gw.ip(f"-6 route add default via {A.WAN_ROUTER[6]} dev wan")


@pytest.fixture(scope="module")
def cloud(lab, provider, tmp_path_factory):
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as it:
        yield it


@pytest.fixture(scope="module")
def branch(lab, gateway, cloud, tmp_path_factory):
    gateway.stop()
    gateway.ensure(api_names(lab_config()))
    cloud.start()
    sag, sn = cloud.gateway()
    # dnsmasq reads its files as another user, who cannot enter the folders of tests.
    open_place = Path(tempfile.mkdtemp(prefix="sag-lan-", dir="/run"))
    open_place.chmod(0o755)
    agent = Agent(lab, cloud, sag, sn)
    agent.place = open_place / sn
    # dhcpcd has its leases and sockets in places that no option names.
    inside, binds = cloud.folder / "agent-with-its-own-dhcpcd", ""
    for place in ("/var/lib/dhcpcd", "/run/dhcpcd"):
        own = cloud.folder / place.strip("/").replace("/", "-")
        own.mkdir()
        binds += f"mkdir -p {place} && mount --bind {own} {place} && "
    inside.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{binds} exec \"$0\" \"$@\"' {agent.bin} \"$@\"\n")
    inside.chmod(0o755)
    agent.bin = str(inside)
    it = Branch(lab, cloud, agent, sag, sn)
    for ns in (lab.lan1, lab.lan2):
        ns.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1", "net.ipv6.conf.eth0.autoconf=1"])
    with http_server(lab.inet, A.INET[6], tmp_path_factory.mktemp("www")):
        yield it
    agent.stop()
    shutil.rmtree(open_place)
    for ns in (lab.lan1, lab.lan2):
        ns.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=0"])
        ns.ip("-6 route flush proto ra", check=False)
        for address in made(ns, ""):
            ns.ip(f"addr del {address}/64 dev eth0", check=False)


def start(branch, wan6=WAN6):
    """The agent with these lines, in contact with the cloud."""
    branch.agent.stop()
    branch.agent.sections = f'[lan]\ndir = "{branch.agent.place}"\n{wan6}'
    branch.agent.start()
    within(20, "in contact", branch.in_force, branch.agent.tail)


def addresses(ns, dev, prefix):
    """Its global addresses out of a prefix: address, and whether it is deprecated."""
    rows = json.loads(ns.out(["ip", "-j", "-6", "addr", "show", "dev", dev, "scope", "global"]))
    all_of = [a for row in rows for a in row.get("addr_info", [])]
    return {a["local"]: bool(a.get("deprecated")) for a in all_of if a.get("local", "").startswith(prefix)}


def made(ns, prefix):
    """Addresses that a host has made of advertisements."""
    rows = json.loads(ns.out("ip -j -6 addr show dev eth0".split()))
    all_of = [a for row in rows for a in row.get("addr_info", []) if a.get("dynamic")]
    return {a["local"]: bool(a.get("deprecated")) for a in all_of if a.get("local", "").startswith(prefix)}


def asks_for(ns, prefix, deprecated=False):
    """An address of the host out of the prefix; routers are asked for first."""
    solicit(ns)
    return next((a for a, old in made(ns, prefix).items() if old == deprecated), None)


def clients(branch):
    """Process of the DHCPv6 client that the agent runs."""
    output = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(branch.agent.process.pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in output.splitlines() if line.split()[1] == "dhcpcd"]


def helpers():
    """Processes of clients for the lab's line."""
    return subprocess.run(["pgrep", "-f", r"^dhcpcd: .*wan \[ip6\]"], capture_output=True, text=True).stdout.split()


def sees(ns, source):
    """The address that the Internet sees."""
    return whoami(ns, f"[{A.INET[6]}]", source) == source


def test_hosts_live_on_a_delegated_prefix(branch, provider, lab, gateway):
    log = lambda: f"{branch.agent.tail(40)}\n{provider.daemons.tail()}\n{lab.gw.out('ip -6 addr')}\n{lab.gw.out('ip -6 route')}"
    routes = lambda: lab.gw.out("ip -6 route show table main")
    provider.serve(OLD)
    start(branch)
    on_lans = lambda prefix: [list(addresses(lab.gw, dev, prefix).values()) for dev in ("lan-a", "lan-b")]
    within(25, "addresses of the LAN ports", lambda: on_lans(OLD) == [[False], [False]], log)
    assert f"{OLD}:1" in addresses(lab.gw, "lan-a", OLD) and f"{OLD}ff::1" in addresses(lab.gw, "lan-b", OLD)
    # The line's own address is by DHCPv6 and the default route by the router's advertisements; the rest is nowhere.
    within(5, "the line's address", lambda: addresses(lab.gw, "wan", "2001:db8:100::1"), log)
    within(10, "a default route", lambda: "default via fe80::" in routes() and "proto ra" in routes(), log)
    assert f"unreachable {OLD}:/56 dev lo proto 92" in routes()
    # Hosts make themselves addresses, and reach the Internet with them.
    hosts = {}
    for ns in (lab.lan1, lab.lan2):
        within(15, "an address of a host", lambda ns=ns: hosts.update({ns: asks_for(ns, OLD)}) or hosts[ns], log)
        within(5, "traffic", lambda ns=ns: sees(ns, hosts[ns]), log)
    assert hosts[lab.lan2].startswith(f"{OLD}ff:")
    by_xdp = lambda: gateway.ports()["1"]["fast"]
    before = by_xdp()
    lab.lan1.run(["ping", "-q", "-c", "20", "-i", "0.01", "-I", hosts[lab.lan1], A.INET[6]])
    assert by_xdp() > before, "its packets are forwarded by XDP"
    # A health check of the line by IPv6.
    line = next(iter(addresses(lab.gw, "wan", "2001:db8:100::1")))
    made_check = branch.mine("CreateHealthCheck", Name="uplink6", Type="ICMP_ECHO", SrcIpAddr=line, DstIpAddr=A.INET[6],
                             ProbeInterval=1000, ProbeTimeout=500, FailCountThreshold=1)["InstanceId"]
    checked = lambda: branch.mine("DescribeHealthChecks")["HealthChecks"]["HealthCheck"][0]["Status"]
    within(8, "the check passes", lambda: checked() == "ok", log)
    lab.inet.run(["nft", "-f", "-"], input=NO_PING.replace("LINE", line))
    try:
        within(8, "the check fails", lambda: checked() == "failed", log)
    finally:
        lab.inet.run(["nft", "delete", "table", "ip6", "no_ping"])
    branch.mine("DeleteHealthCheck", HcInstanceId=made_check)
    # What is on no LAN comes back as unreachable, and does not go round between provider and gateway.
    refused = lab.inet.run(["ping", "-c", "1", "-W", "2", f"{OLD}77::9"], check=False).stdout
    assert "nreachable" in refused or "No route" in refused, refused
    # The client is killed: its helpers go, another one has the same prefix, and traffic goes on meanwhile.
    [client] = clients(branch)
    os.kill(client, signal.SIGKILL)
    assert sees(lab.lan1, hosts[lab.lan1])
    within(10, "another client", lambda: clients(branch) not in ([], [client]), log)
    renewed = lambda: provider.daemons.tail().count("DHCP6_PD_LEASE_RENEW")
    within(15, "the lease is renewed", renewed, log)
    assert on_lans(OLD) == [[False], [False]] and sees(lab.lan1, hosts[lab.lan1])
    # The agent is killed and comes back: one client, the same addresses.
    branch.agent.kill()
    assert on_lans(OLD) == [[False], [False]]
    start(branch)
    within(10, "its client", lambda: len(clients(branch)) == 1, log)
    assert on_lans(OLD) == [[False], [False]] and sees(lab.lan1, hosts[lab.lan1])
    # It ends: the gateway goes on with what it has.
    branch.agent.stop()
    within(3, "no client is left", lambda: not helpers())
    assert on_lans(OLD) == [[False], [False]] and sees(lab.lan1, hosts[lab.lan1])
    start(branch)
    within(10, "its client", lambda: len(clients(branch)) == 1, log)
    # The provider gives another prefix. The old one is deprecated at once, and still works for what goes on.
    provider.serve(NEW)
    within(25, "the new prefix", lambda: on_lans(NEW) == [[False], [False]] and on_lans(OLD) == [[True], [True]], log)
    new = {}
    within(15, "hosts have both", lambda: new.update(a=asks_for(lab.lan1, NEW)) or (new["a"] and asks_for(lab.lan1, OLD, True)), log)
    within(5, "traffic from the new one", lambda: sees(lab.lan1, new["a"]), log)
    assert sees(lab.lan1, hosts[lab.lan1])
    assert f"unreachable {NEW}:/56 dev lo proto 92" in routes()
    # The setting goes: nothing is left.
    start(branch, "")
    left = lambda: [list(addresses(lab.gw, dev, "2001:db8:")) for dev in ("lan-a", "lan-b", "wan")]
    within(10, "no addresses", lambda: left() == [[A.GW_LAN_A[6]], [A.GW_LAN_B[6]], []], lambda: f"{left()}\n{log()}")
    within(5, "no routes", lambda: "unreachable" not in routes(), log)
    assert not helpers()


def test_a_lease_that_is_lost_is_withdrawn(branch, provider, lab):
    """Nobody renews it: the networks end with it, hosts are told, and the operator is."""
    log = lambda: f"{branch.agent.tail(40)}\n{provider.daemons.tail()}\n{lab.gw.out('ip -6 addr')}"
    provider.serve(OLD, preferred=12, valid=20)
    start(branch)
    try:
        within(25, "an address", lambda: list(addresses(lab.gw, "lan-a", OLD).values()) == [False], log)
        host = {}
        within(15, "an address of a host", lambda: host.update(a=asks_for(lab.lan1, OLD)) or host["a"], log)
        provider.stop()
        within(25, "it is gone", lambda: not addresses(lab.gw, "lan-a", OLD), log)
        solicit(lab.lan1)
        within(5, "the host's is deprecated or gone", lambda: not asks_for(lab.lan1, OLD), log)
        within(5, "no route to it", lambda: f"unreachable {OLD}:" not in lab.gw.out("ip -6 route"), log)
        told = lambda: [d for d in branch.agent.status()["Deviations"] if "delegated no prefix" in d]
        within(5, "the operator sees why", told, log)
        provider.serve(OLD)
        within(30, "it is back", lambda: list(addresses(lab.gw, "lan-a", OLD).values()) == [False], log)
        within(5, "nothing is wrong", lambda: not told(), log)
    finally:
        start(branch, "")


def test_a_fixed_address(branch, provider, lab):
    """An address and a router of the provider, as the file says them; undone when it does not."""
    fixed = f'[[ipv6.wan]]\nport = "0"\naddress = "2001:db8:100::77/64"\ngateway = "{A.WAN_ROUTER[6]}"\n'
    start(branch, fixed)
    routes = lambda: lab.gw.out("ip -6 route")
    within(5, "the address", lambda: "2001:db8:100::77" in addresses(lab.gw, "wan", "2001:db8:100::77"), branch.agent.tail)
    within(5, "the route", lambda: f"default via {A.WAN_ROUTER[6]} dev wan proto 92" in routes(), branch.agent.tail)
    assert not clients(branch)
    start(branch, "")
    within(5, "it is gone", lambda: not addresses(lab.gw, "wan", "2001:db8:100::77") and "proto 92" not in routes(), branch.agent.tail)


def test_what_cannot_be_is_named(branch, lab):
    """A port of another role, a subnet that the prefix does not have; a file that is wrong is refused."""
    start(branch, '[[ipv6.wan]]\nport = "1"\naddress = "ra"\n')
    told = lambda word: [d for d in branch.agent.status()["Deviations"] if word in d]
    within(5, "a LAN port", lambda: told("IPv6 of port 1") and told("no WAN port"), branch.agent.tail)
    branch.agent.stop()
    branch.agent.sections = '[[ipv6.wan]]\nport = "0"\nprefix_length = 60\nlans = { "1" = 16 }\n'
    branch.agent.start()
    assert branch.agent.wait() != 0
    assert "use 0..15" in branch.agent.tail()
    with contextlib.suppress(Exception):
        branch.agent.stop()
    start(branch, "")
