"""DHCP, DNS and router advertisements on LAN ports: calls by the official SDK, dnsmasq run by the agent beside a gateway
with XDP, real DHCP clients and resolvers on the LANs, at the WAN router and in the Internet."""

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import tempfile
import time
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, SdkError, api_names, cloud_of, whoami
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.lan import ask, leased, resolve
from harness.routers import Daemons, program
from harness.traffic import http_server
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

LAN = dict(PortName="1", IP=A.GW_LAN_A[4], Mask="255.255.255.192")
RANGE = dict(StartIp="192.0.2.40", EndIp="192.0.2.50", Lease="7")
# What the two DNS servers of the Internet say of every name of this domain.
MASTER, SLAVE = "203.0.113.201", "203.0.113.202"
# Addresses are offered at once, without a ping of three seconds before.
QUICK = 'ping = false\ndomain = "branch.example"\n'


@pytest.fixture(scope="module")
def cloud(lab, tmp_path_factory):
    program("dnsmasq", "/usr/sbin/dnsmasq")
    program("udhcpc", "/sbin/udhcpc", "/usr/sbin/udhcpc")
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as it:
        yield it


@pytest.fixture(scope="module")
def branch(lab, gateway, cloud, tmp_path_factory):
    gateway.ensure(api_names(lab_config()))
    cloud.start()
    sag, sn = cloud.gateway()
    # dnsmasq reads its files as another user, who cannot enter the folders of tests.
    open_place = Path(tempfile.mkdtemp(prefix="sag-lan-", dir="/run"))
    open_place.chmod(0o755)
    resolv_conf = open_place / "resolv.conf"
    resolv_conf.write_text(f"nameserver {A.INET[4]}\n")
    agent = Agent(lab, cloud, sag, sn, resolv_conf=str(resolv_conf))
    agent.place = open_place / sn
    it = Branch(lab, cloud, agent, sag, sn)
    with http_server(lab.inet, A.INET[4], tmp_path_factory.mktemp("www")):
        yield it
    agent.stop()
    shutil.rmtree(open_place)


def start(branch, lan=QUICK, **keys):
    """The agent with these lines in its section [lan], in contact with the cloud."""
    branch.agent.stop()
    branch.agent.sections = f'[lan]\ndir = "{branch.agent.place}"\n{lan}'
    branch.agent.start(**keys)
    within(10, "in contact", branch.in_force, branch.agent.tail)
    within(5, "reported", lambda: lacking(branch) == ("off" in lan), branch.agent.tail)


def lacking(branch):
    """Whether the device has reported that it has no DHCP server."""
    rows = branch.mine("ListSmartAGApiUnsupportedFeature", SerialNumber=branch.sn, OpenApiName="ModifySagLan")
    return "DhcpServer" in json.dumps(rows)


@pytest.fixture
def served(branch):
    """An agent that serves LANs when it is told to, and nothing that is served afterwards."""
    start(branch)
    yield branch
    branch.device("ModifySagLan", IPType="STATIC", **LAN)
    with contextlib.suppress(SdkError):
        branch.device("ModifySagUserDns", MasterDns="", SlaveDns="")


@pytest.fixture
def daemons(tmp_path):
    it = Daemons(tmp_path)
    yield it
    it.close()


@pytest.fixture
def names(lab, daemons):
    """DNS servers in the Internet, the second one by IPv6 alone: their processes."""
    out = []
    for address, says in ((A.INET[4], MASTER), (A.INET[6], SLAVE)):
        command = [
            program("dnsmasq", "/usr/sbin/dnsmasq"), "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file=",
            "--no-resolv", "--no-hosts", "--bind-interfaces", f"--listen-address={address}", "--except-interface=lo",
            f"--address=/example/{says}", "--log-facility=-",
        ]
        out.append(daemons.start(lab.inet, f"names-{says}", command))
    for server in (A.INET[4], A.INET[6]):
        within(5, "a DNS server", lambda s=server: resolve(lab.inet, s, "a.example"), daemons.tail)
    return out


def lan_state(branch, what="dhcp"):
    """`sagctl dhcp --json`, or `dns`."""
    lab = branch.lab
    done = lab.gw.run([lab.sagctl, "--json", what, "--dir", branch.agent.place], check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {}


def running(branch):
    """The process of the daemon; None: none runs."""
    pid = (lan_state(branch).get("Daemon") or {}).get("Pid")
    return pid if pid and alive(pid) else None


def alive(pid):
    """Whether the process runs: one that has ended has no command line, even if nobody has waited for it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def solicit(ns):
    """Asks for routers."""
    with ns.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as host:
        host.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = json.loads(ns.out(["ip", "-j", "link", "show", "eth0"]))[0]["ifindex"]
        host.sendto(struct.pack(">BBHI", 133, 0, 0, 0), ("ff02::2", 0, 0, index))


def test_dhcp_server(served, lab, tmp_path):
    """Addresses of the range on that port alone, with which traffic passes; a daemon that is killed comes back."""
    branch = served
    assert not leased(lab.lan1, "eth0", tmp_path)
    branch.device("ModifySagLan", IPType="DHCP", **LAN, **RANGE)
    given = {}
    branch.soon("a lease", lambda: given.update(leased(lab.lan1, "eth0", tmp_path)) or given.get("ip"), 1.5)
    address = given["ip"]
    assert 40 <= int(address.removeprefix("192.0.2.")) <= 50
    have = {key: given[key] for key in ("router", "dns", "subnet", "lease", "domain", "serverid")}
    own = A.GW_LAN_A[4]
    assert have == {"router": own, "dns": own, "subnet": "255.255.255.192", "lease": "420", "domain": "branch.example", "serverid": own}
    # Neither the other LAN nor the WAN is served.
    others = [ask(ns, dev, tmp_path)[0] for ns, dev in ((lab.lan2, "eth0"), (lab.wan, "gw"))]
    lab.lan1.ip(f"addr add {address}/26 dev eth0")
    try:
        within(2, "traffic from the leased address", lambda: whoami(lab.lan1, A.INET[4], address) == address, branch.agent.tail)
    finally:
        lab.lan1.ip(f"addr del {address}/26 dev eth0")
    assert [other.wait(10) != 0 for other in others] == [True, True]
    mac = lab.lan1.mac("eth0")
    within(3, "the lease is shown", lambda: (address, mac) in [(x["Address"], x["Mac"]) for x in lan_state(branch)["Leases"]])
    table = lab.gw.out([lab.sagctl, "dhcp", "--dir", branch.agent.place])
    assert "192.0.2.40-192.0.2.50" in table and address in table
    lans = branch.device("DescribeSagLanList")
    assert [t["State"] for t in lans["TaskStates"]] == ["Succeed"]
    # It comes back with its leases.
    before = running(branch)
    os.kill(before, signal.SIGKILL)
    within(4, "another process", lambda: running(branch) not in (None, before), branch.agent.tail)
    assert leased(lab.lan1, "eth0", tmp_path).get("ip") == address
    # One that a killed agent leaves behind goes on, until the next agent replaces it.
    before = running(branch)
    branch.agent.kill()
    assert leased(lab.lan1, "eth0", tmp_path).get("ip") == address
    start(branch)
    within(5, "another process", lambda: running(branch) not in (None, before), branch.agent.tail)
    within(2, "the one before has ended", lambda: not alive(before))
    assert leased(lab.lan1, "eth0", tmp_path).get("ip") == address
    branch.device("ModifySagLan", IPType="STATIC", **LAN)
    branch.soon("no daemon", lambda: running(branch) is None, 1.5)
    assert not leased(lab.lan1, "eth0", tmp_path)


def test_a_daemon_that_hangs(served, lab, tmp_path):
    """It is named, and another one takes its place."""
    branch = served
    branch.device("ModifySagLan", IPType="DHCP", **LAN, **RANGE)
    branch.soon("a lease", lambda: leased(lab.lan1, "eth0", tmp_path), 1.5)
    before = running(branch)
    os.kill(before, signal.SIGSTOP)
    states = lambda: branch.device("DescribeSagLanList")["TaskStates"][0]
    within(10, "the API says so", lambda: "dnsmasq: it is stopped" in json.dumps(states()), branch.agent.tail)
    within(25, "another process", lambda: running(branch) not in (None, before), branch.agent.tail)
    assert not alive(before) and leased(lab.lan1, "eth0", tmp_path)
    within(5, "all is well", lambda: states()["State"] == "Succeed", branch.agent.tail)


def test_dns_forwarder(served, lab, names, daemons):
    """Both LANs, both families; the second server when the first is dead; domains of their own; never from the WAN."""
    branch = served
    assert not resolve(lab.lan1, A.GW_LAN_A[4], "a.example")
    branch.device("ModifySagUserDns", MasterDns=A.INET[4], SlaveDns="")
    branch.soon("a name", lambda: resolve(lab.lan1, A.GW_LAN_A[4], "a.example") == [MASTER], 1.5)
    for ns, server in ((lab.lan1, A.GW_LAN_A[6]), (lab.lan2, A.GW_LAN_B[4]), (lab.lan2, A.GW_LAN_B[6])):
        assert resolve(ns, server, "b.example") == [MASTER], server
    assert resolve(lab.lan1, A.GW_LAN_A[4], "c.example", "+tcp") == [MASTER]
    for server in (A.GW_WAN[4], A.GW_LAN_A[4], A.GW_LAN_A[6]):
        assert not resolve(lab.wan, server, "a.example"), f"the WAN is served at {server}"
    current = lambda: [branch.device("DescribeSagCurrentDns")[key] for key in ("MasterDns", "SlaveDns")]
    within(4, "told", lambda: current() == [A.INET[4], ""], branch.agent.tail)
    # A domain of its own, by a port; everything else goes on as before.
    forward = dict(SagInsId=branch.sag, SagSn=branch.sn, RegionId="cn-shanghai")
    made = branch.call("AddSmartAccessGatewayDnsForward", Domain="*.corp.example", MasterIp=A.INET[6],
                       OutboundPortType="PhysicalPort", OutboundPortName="0", **forward)["Data"]["InstanceId"]
    branch.soon("its own server", lambda: resolve(lab.lan1, A.GW_LAN_A[4], f"{time.time_ns()}.corp.example") == [SLAVE], 1.5)
    assert resolve(lab.lan1, A.GW_LAN_A[4], "d.example") == [MASTER]
    within(2, "shown", lambda: [d["Domain"] for d in lan_state(branch, "dns")["Domains"]] == ["*.corp.example"])
    assert "*.corp.example" in lab.gw.out([lab.sagctl, "dns", "--dir", branch.agent.place])
    branch.call("DeleteSmartAccessGatewayDnsForward", InstanceId=made, **forward)
    branch.soon("no more", lambda: resolve(lab.lan1, A.GW_LAN_A[4], f"{time.time_ns()}.corp.example") == [MASTER], 1.5)
    # With the first server dead the second one answers.
    branch.device("ModifySagUserDns", MasterDns=A.INET[4], SlaveDns=A.INET[6])
    within(4, "told", lambda: current() == [A.INET[4], A.INET[6]], branch.agent.tail)
    daemons.end(names[0])
    within(3, "the second server", lambda: resolve(lab.lan1, A.GW_LAN_A[4], f"{time.time_ns()}.example") == [SLAVE], branch.agent.tail)
    branch.device("ModifySagUserDns", MasterDns="", SlaveDns="")
    branch.soon("no forwarder", lambda: running(branch) is None, 1.5)
    assert not resolve(lab.lan1, A.GW_LAN_A[4], "a.example")
    # What the machine itself uses is in use.
    within(4, "told", lambda: current() == [A.INET[4], ""], branch.agent.tail)


def test_relay_reservation_and_router_advertisements(served, lab, daemons, tmp_path):
    """What the device's own file adds: addresses of a server elsewhere, of certain hosts, and IPv6."""
    branch = served
    mac = lab.lan1.mac("eth0")
    start(branch, f"""{QUICK}advertise = ["1"]
[[lan.reservation]]
mac = "{mac}"
address = "192.0.2.33"
name = "reserved"
[[lan.relay]]
port = "4"
server = "{A.WAN_ROUTER[4]}"
""")
    command = [
        program("dnsmasq", "/usr/sbin/dnsmasq"), "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file=",
        "--interface=gw", "--bind-dynamic", "--no-ping", "--log-dhcp", "--log-facility=-", f"--dhcp-leasefile={tmp_path / 'elsewhere'}",
        "--dhcp-range=192.0.2.80,192.0.2.90,255.255.255.192,5m",
    ]
    daemons.start(lab.wan, "elsewhere", command)
    log = lambda: f"{daemons.tail()}\n{branch.agent.tail()}"
    within(5, "a lease by the relay", lambda: leased(lab.lan2, "eth0", tmp_path).get("ip", "").startswith("192.0.2."), log)
    given = leased(lab.lan2, "eth0", tmp_path)
    assert 80 <= int(given["ip"].removeprefix("192.0.2.")) <= 90
    branch.device("ModifySagLan", IPType="DHCP", **LAN, **RANGE)
    branch.soon("the reserved address", lambda: leased(lab.lan1, "eth0", tmp_path).get("ip") == "192.0.2.33", 1.5)
    assert resolve(lab.lan1, A.GW_LAN_A[4], "reserved.branch.example") == ["192.0.2.33"]
    shown = lambda: {p["Port"]: (p["Dhcp"], p["Advertises"]) for p in lan_state(branch)["Ports"]}
    within(2, "shown", lambda: shown() == {"1": ("server", True), "4": ("relay", False)})
    # A host makes itself an address of the network that is advertised, and no host of another port does.
    for ns in (lab.lan1, lab.lan2):
        ns.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1"])

    def made(ns):
        devices = json.loads(ns.out("ip -j -6 addr show dev eth0".split()))
        return [a["local"] for d in devices for a in d.get("addr_info", []) if a.get("dynamic")]

    def advertised():
        solicit(lab.lan1)
        solicit(lab.lan2)
        time.sleep(0.1)
        return made(lab.lan1)

    try:
        within(5, "an address by advertisements", advertised, log)
        assert made(lab.lan1)[0].startswith("2001:db8:1:") and not made(lab.lan2)
    finally:
        for ns in (lab.lan1, lab.lan2):
            ns.run(["sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=0"])
            ns.ip("-6 route flush proto ra", check=False)
            for address in made(ns):
                ns.ip(f"addr del {address}/64 dev eth0")


def test_a_device_that_cannot_says_so(served, lab, tmp_path):
    """What was set before has no effect, by name; what is set anew is refused."""
    branch = served
    branch.device("ModifySagLan", IPType="DHCP", **LAN, **RANGE)
    branch.soon("a lease", lambda: leased(lab.lan1, "eth0", tmp_path), 1.5)
    start(branch, 'mode = "off"\n')
    states = lambda: branch.device("DescribeSagLanList")["TaskStates"][0]
    within(5, "told", lambda: states()["State"] == "HardwareError", branch.agent.tail)
    assert "DHCP server of port 1" in json.dumps(states())
    assert not leased(lab.lan1, "eth0", tmp_path)
    for op, params in (("ModifySagLan", dict(IPType="DHCP", **LAN)), ("ModifySagUserDns", dict(MasterDns=A.INET[4], SlaveDns=""))):
        with pytest.raises(SdkError) as refused:
            branch.device(op, **params)
        assert refused.value.code == "FeatureNotSupport"
