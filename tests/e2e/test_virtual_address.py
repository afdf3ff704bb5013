"""A virtual address of a LAN port by calls of the official SDK: the gateway and another router that run keepalived."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, SdkError, api_names, cloud_of, pings, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.lan import leased
from harness.routers import Keepalived, Vrrp, program
from test_routing import routing, routing_services

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

VIRTUAL = "192.0.2.6"


@pytest.fixture(scope="module")
def place(lab):
    return lab.run_dir / "routing"


@pytest.fixture(scope="module")
def branch(lab, gateway, place, tmp_path_factory):
    program("keepalived", "/usr/sbin/keepalived")
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as cloud:
        gateway.ensure(api_names(lab_config()))
        cloud.start()
        sag, sn = cloud.gateway()
        agent = Agent(lab, cloud, sag, sn)
        agent.sections = f'[routing]\ndir = "{place}"\n[lan]\nping = false\n'
        agent.start()
        it = Branch(lab, cloud, agent, sag, sn)
        within(10, "first contact", it.in_force, agent.tail)
        yield it
        agent.stop()


def has(lab):
    return VIRTUAL in lab.gw.out(["ip", "-4", "addr", "show", "dev", "lan-a"])


def test_a_virtual_address_moves(branch, place, daemons, lab):
    log = lambda: f"{branch.agent.tail(40)}\n{daemons.tail()}\n{routing(branch, place)}"
    state = lambda: (routing(branch, place)["Vrrp"] or {}).get("State")
    main = lambda: branch.mine("DescribeSmartAccessGatewayHa").get("MainDeviceId")
    task = lambda: branch.device("DescribeSagHa")["TaskStates"][0]
    static = dict(Mode="STATIC", PortName="1")
    branch.device("ModifySagHa", VirtualIp=VIRTUAL, **static)
    # Nobody else has it.
    within(6, "the gateway has the address", lambda: state() == "MASTER" and has(lab), log)
    within(1, "hosts reach it", lambda: pings(lab.lan1, VIRTUAL), log)
    assert task()["State"] == "Succeed"
    lab.lan1.ip(f"route add {A.INET[4]}/32 via {VIRTUAL}")
    try:
        within(1, "it forwards for them", lambda: pings(lab.lan1, A.INET[4]), log)
    finally:
        lab.lan1.ip(f"route del {A.INET[4]}/32")
    within(3, "the API knows the device that has it", lambda: main() == branch.sn, log)
    # One with a higher priority takes it.
    other = Keepalived(daemons, lab.lan1, "eth0", [Vrrp(6, 4, False, [f"{VIRTUAL}/32"])], 200)
    within(5, "the other router has it", lambda: state() == "BACKUP" and not has(lab) and other.has() == {6}, log)
    within(3, "the API knows that this device has not", lambda: main() != branch.sn, log)
    other.end(signal.SIGKILL)
    lab.lan1.run(["ip", "addr", "del", f"{VIRTUAL}/32", "dev", "eth0"], check=False)
    within(6, "it is back", lambda: state() == "MASTER" and has(lab), log)
    within(1, "hosts reach it again", lambda: pings(lab.lan1, VIRTUAL), log)
    # keepalived is killed: another one takes its place.
    before = next(d["Pid"] for d in routing(branch, place)["Daemons"] if d["Name"] == "keepalived")
    lab.gw.run(["kill", "-9", before])
    again = lambda: [d for d in routing(branch, place)["Daemons"] if d["Pid"] not in (None, before) and d["Restarts"] == 1]
    within(5, "keepalived runs again", again, log)
    within(6, "it has the address again", lambda: state() == "MASTER" and pings(lab.lan1, VIRTUAL), log)
    # An address that no host of the LAN would look for is told, and not held.
    branch.device("ModifySagHa", VirtualIp="10.9.9.9", **static)
    within(3, "it is an error of the device", lambda: task()["State"] == "HardwareError", log)
    assert "in no network of the port" in task()["ErrorMessage"]
    within(3, "the old one is gone", lambda: not has(lab) and state() is None, log)
    with pytest.raises(SdkError) as refused:
        branch.device("ModifySagHa", Mode="STATIC", PortName="0", VirtualIp=VIRTUAL)
    assert refused.value.code == "Sag.HaPortRoleError"
    branch.device("ModifySagHa", VirtualIp=VIRTUAL, **static)
    within(6, "another one", lambda: state() == "MASTER" and has(lab), log)
    # Undone by the opposite call.
    branch.device("ModifySagHa", Mode="NONE")
    within(3, "nothing is left", lambda: not has(lab) and not routing(branch, place)["Daemons"], log)
    assert task()["State"] == "Succeed"
    within(3, "the device is active by itself", lambda: main() == branch.sn, log)


def test_hosts_by_dhcp_go_by_the_virtual_address(branch, lab, tmp_path):
    """It is their router and DNS server, so that they go on by the other device, and none of them gets it."""
    program("dnsmasq", "/usr/sbin/dnsmasq")
    lan = dict(PortName="1", IP=A.GW_LAN_A[4], Mask="255.255.255.192", StartIp=VIRTUAL, EndIp="192.0.2.7", Lease="5")
    given = lambda: [leased(lab.lan1, "eth0", tmp_path).get(key) for key in ("ip", "router", "dns")]
    branch.device("ModifySagLan", IPType="DHCP", **lan)
    branch.device("ModifySagHa", Mode="STATIC", PortName="1", VirtualIp=VIRTUAL)
    within(15, "they are told", lambda: given() == ["192.0.2.7", VIRTUAL, VIRTUAL], branch.agent.tail)
    branch.device("ModifySagHa", Mode="NONE")
    within(15, "the port's own", lambda: given()[1:] == [A.GW_LAN_A[4]] * 2, branch.agent.tail)
    branch.device("ModifySagLan", IPType="STATIC", PortName="1", IP=A.GW_LAN_A[4], Mask="255.255.255.192")


def speaker(place):
    """The process that speaks VRRP; None: there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int((place / "keepalived-vrrp.pid").read_text())
    return None


def test_keepalived_that_hangs(branch, place, daemons, lab):
    """The process that speaks VRRP is stopped: the device does not say that it has the address, and another process takes
    its place. Nothing of the stopped one is left, which would take the address away when it goes on."""
    log = lambda: f"{branch.agent.tail(40)}\n{daemons.tail()}\n{routing(branch, place)}"
    state = lambda: (routing(branch, place)["Vrrp"] or {}).get("State")
    task = lambda: branch.device("DescribeSagHa")["TaskStates"][0]
    branch.device("ModifySagHa", Mode="STATIC", PortName="1", VirtualIp=VIRTUAL)
    within(6, "the gateway has the address", lambda: state() == "MASTER" and has(lab), log)
    child = speaker(place)
    os.kill(child, signal.SIGSTOP)
    within(6, "it does not say that it has it", lambda: state() == "", log)
    within(3, "the API says so", lambda: "keepalived: it is stopped" in task().get("ErrorMessage", ""), log)
    within(25, "another process", lambda: speaker(place) not in (None, child), log)
    within(6, "it has the address", lambda: state() == "MASTER" and has(lab) and pings(lab.lan1, VIRTUAL), log)
    assert not Path(f"/proc/{child}").exists(), "the stopped one is left"
    within(3, "all is well", lambda: task()["State"] == "Succeed", log)
    branch.device("ModifySagHa", Mode="NONE")
    within(3, "nothing is left", lambda: not has(lab) and not routing(branch, place)["Daemons"], log)


def test_killed_keepalived_leaves_no_address(branch, place, lab):
    """Agent, routing service and keepalived are killed, and the virtual address is not wanted any more when the next agent
    comes."""
    branch.device("ModifySagHa", Mode="STATIC", PortName="1", VirtualIp=VIRTUAL)
    within(6, "the gateway has the address", lambda: has(lab), branch.agent.tail)
    pids = [int((place / "keepalived.pid").read_text()), speaker(place)]
    services = routing_services(branch)
    # Stopped first, so that none does anything about the end of another.
    for how in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (branch.agent.process.pid, *services, *pids):
            os.kill(pid, how)
    branch.agent.kill()
    assert has(lab), "nobody has removed it"
    branch.device("ModifySagHa", Mode="NONE")
    branch.agent.start()
    within(10, "it is removed", lambda: not has(lab), branch.agent.tail)
