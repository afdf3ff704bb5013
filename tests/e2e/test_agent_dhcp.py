"""A WAN port of IPType DHCP: a real server on the provider's side, an installed client run by the agent."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, api_names, cloud_of, whoami, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.traffic import http_server

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

CLIENTS = {"udhcpc": ("/sbin/udhcpc", "/usr/sbin/udhcpc"), "dhcpcd": ("/usr/sbin/dhcpcd",), "dhclient": ("/sbin/dhclient", "/usr/sbin/dhclient")}
FIRST, LAST = 50, 60
STATIC = dict(PortName="0", IPType="STATIC", IP=A.GW_WAN[4], Mask="255.255.255.0", Gateway=A.WAN_ROUTER[4])


class Server:
    """dnsmasq on the provider's router."""

    def __init__(self, lab, folder):
        program = shutil.which("dnsmasq") or "/usr/sbin/dnsmasq"
        if not Path(program).exists():
            pytest.skip("no DHCP server: dnsmasq is not installed (scripts/setup.sh installs dnsmasq-base)")
        self.log = folder / "dnsmasq.log"
        command = [
            program, "--no-daemon", "--port=0", "--conf-file=/dev/null", "--user=root", "--pid-file=", "--interface=gw",
            "--bind-interfaces", "--log-dhcp", f"--dhcp-leasefile={folder / 'leases'}", f"--dhcp-option=3,{A.WAN_ROUTER[4]}",
            f"--dhcp-range=198.51.100.{FIRST},198.51.100.{LAST},255.255.255.0,2m",
        ]
        self.process = lab.wan.popen(command, stdout=open(self.log, "wb"))

    def output(self, word):
        return self.log.read_text(errors="replace").count(word)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    """Requested before the cloud, so that a skip comes before anything is started."""
    it = Server(lab, tmp_path_factory.mktemp("dhcp"))
    yield it
    it.stop()


@pytest.fixture(scope="module")
def cloud(lab, server, tmp_path_factory):
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as it:
        yield it


@pytest.fixture(scope="module")
def branch(lab, gateway, cloud, tmp_path_factory):
    gateway.ensure(api_names(lab_config()))
    cloud.start()
    sag, sn = cloud.gateway()
    agent = Agent(lab, cloud, sag, sn)
    # The clients' scripts write below /etc; here that is a copy.
    etc, inside = cloud.folder / "etc", cloud.folder / "agent-in-its-own-etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    inside.write_text(f"#!/bin/sh\nexec unshare --mount sh -c 'mount --bind {etc} /etc && exec \"$0\" \"$@\"' {agent.bin} \"$@\"\n")
    inside.chmod(0o755)
    agent.bin = str(inside)
    it = Branch(lab, cloud, agent, sag, sn)
    with http_server(lab.inet, A.INET[4], tmp_path_factory.mktemp("www")):
        yield it
    agent.stop()


def wan_addresses(lab):
    rows = json.loads(lab.gw.out(["ip", "-j", "-4", "addr", "show", "dev", "wan"]))
    return [a["local"] for a in rows[0]["addr_info"]] if rows else []


def leased(lab):
    """The address that the server has given, if it is the only one."""
    match wan_addresses(lab):
        case [one] if one.startswith("198.51.100.") and FIRST <= int(one.split(".")[3]) <= LAST:
            return one
    return None


def children(branch, name):
    """Processes of the client that the agent runs."""
    output = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(branch.agent.process.pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in output.splitlines() if name in line]


@pytest.fixture(params=CLIENTS)
def client(request, branch, lab):
    """The agent with one client, the WAN port still with its fixed address."""
    if not any(Path(p).exists() for p in CLIENTS[request.param]):
        pytest.skip(f"{request.param} is not installed")
    branch.agent.start(dhcp_client=request.param)
    within(15, "in contact", branch.in_force, branch.agent.tail)
    branch.snat("ENABLE")
    branch.device("ModifySagWan", **STATIC)
    within(5, "the fixed address", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    yield request.param
    # Back, however the test ended.
    branch.agent.stop()
    lab.gw.ip("addr flush dev wan")
    lab.gw.ip(f"addr add {A.GW_WAN[4]}/24 dev wan")
    lab.gw.ip(f"route replace default via {A.WAN_ROUTER[4]} dev wan")


def test_a_wan_port_by_dhcp(client, branch, server, lab):
    agent = branch.agent
    log = lambda: f"{agent.tail()}\n{server.log.read_text(errors='replace')[-2000:]}"
    branch.device("ModifySagWan", PortName="0", IPType="DHCP")
    within(20, "an address of the server", lambda: leased(lab), log)
    address = leased(lab)
    within(5, "a default route of the server", lambda: f"default via {A.WAN_ROUTER[4]}" in lab.gw.out("ip -4 route"), log)
    within(5, "traffic goes out from it", lambda: whoami(lab.lan1, A.INET[4]) == address, log)
    # The agent itself reaches the cloud by it.
    reported = lambda: [(w["IP"], w["IPType"]) for w in branch.device("DescribeSagWanList")["Wans"]]
    within(20, "reported", lambda: (address, "DHCP") in reported(), log)
    # The next process of the agent runs the client again, or the lease would not be renewed.
    agent.stop()
    assert not children_left(client), "the client ends with the agent"
    assert wan_addresses(lab) == [address], "and the address stays"
    agent.start(dhcp_client=client)
    within(20, "the client again", lambda: children(branch, client), log)
    within(20, "the same lease", lambda: leased(lab) == address and whoami(lab.lan1, A.INET[4]) == address, log)
    if client == "udhcpc":
        acks = server.output("DHCPACK")
        for pid in children(branch, client):
            Path(f"/proc/{pid}").exists() and subprocess.run(["kill", "-USR1", str(pid)], check=True)
        within(10, "the lease is renewed", lambda: server.output("DHCPACK") > acks, log)
        assert leased(lab) == address
    # A fixed address again: the client goes.
    within(20, "in contact", branch.in_force, log)
    branch.device("ModifySagWan", **STATIC)
    within(5, "the fixed address alone", lambda: wan_addresses(lab) == [A.GW_WAN[4]], log)
    within(5, "traffic goes out from it", lambda: whoami(lab.lan1, A.INET[4]) == A.GW_WAN[4], log)
    within(5, "no client", lambda: not children(branch, client), log)


def children_left(name):
    """Clients on a device with the name of the lab's device."""
    time.sleep(0.2)
    output = subprocess.run(["pgrep", "-a", "-x", name], capture_output=True, text=True).stdout
    return [line for line in output.splitlines() if line.endswith(" wan")]
