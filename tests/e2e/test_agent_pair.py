"""Two devices of one instance, their agents, and the cloud: one ModifySagHa for each gives them a virtual address that moves,
and the sessions follow by a link whose key they agree on."""

import contextlib
import os
import signal
import socket
import time

import pytest

from harness.cloud import Agent, cloud_of, within
from harness.net import run
from harness.pair import SERVER, Member, Pair
from harness.routers import program
from harness.waiting import TIMEOUT

pytestmark = pytest.mark.sag

VIRTUAL = "10.1.0.1"
OWN = {"a": 2, "b": 3}
# Both translate to it by the leased line; the server's router sends it to the one that has the virtual address.
TRANSLATED = "203.0.113.50"
CONNECTIONS = 100

DOCUMENT = """
[dataplane]
workers = 1
flows = 4096
state_dir = "{run}/state"
pin_dir = "{pins}"
control = "{run}/vcpe.sock"
metrics = ""

[[port]]
name = "3"
device = "wan"
role = "express"

[[port]]
name = "1"
device = "lan"
role = "lan"
"""


class Device(Member):
    """A gateway with addresses of its own, and its agent."""

    agent = None

    @property
    def gw(self):
        return self.ns

    @property
    def socket(self):
        return str(self.run_dir / "vcpe.sock")

    def document(self):
        return DOCUMENT.format(run=self.run_dir, pins=self.pins)

    def plug(self):
        number = OWN[self.name]
        for device, net in (("lan", "10.1.0"), ("wan", "198.51.100")):
            self.ns.ip(f"link set {device} up")
            self.ns.ip(f"addr replace {net}.{number}/24 dev {device}")

    def power_off(self):
        """Every process dies at once, and no frame passes any more."""
        pids = run(["ip", "netns", "pids", f"{self.pair.prefix}gw-{self.name}"]).stdout.split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        self.agent.wait()
        self.kill()
        # Of memory nothing is left.
        self.wipe()

    def remove(self):
        if self.agent is not None:
            self.agent.stop()
        super().remove()

    def has_virtual(self):
        return f" {VIRTUAL}/" in self.ns.out(["ip", "-4", "-o", "addr", "show", "dev", "lan"])

    def linked(self):
        ha = self.ctl("ha", check=False)
        return bool(ha and ha["linked"] and ha["in_sync"] and ha["peer_in_sync"])


class Bed(Pair):
    @property
    def inet(self):
        return self.server

    def traffic_to(self, device):
        """What a router of the provider does when the virtual address has moved."""
        via = f"198.51.100.{OWN[device.name]}"
        self.server.ip(f"route replace {TRANSLATED}/32 via {via}")


@pytest.fixture(scope="module")
def bed():
    program("keepalived", "/usr/sbin/keepalived")
    it = Bed(Device)
    try:
        for device in it.members:
            device.plug()
            device.start()
        it.traffic_to(it.a)
        yield it
    finally:
        it.down()


@pytest.fixture(scope="module")
def cloud(bed, tmp_path_factory):
    with cloud_of(bed, tmp_path_factory.mktemp("cloud"), f"{SERVER[4]}:8180") as it:
        it.start()
        yield it


@pytest.fixture(scope="module")
def sag(bed, cloud):
    """The instance; the agents of both devices run and are known to the cloud."""
    sag, _ = cloud.gateway()
    rows = cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["Devices"]["Device"]
    for device, row, priority in zip(bed.members, rows, (200, 100), strict=True):
        device.sn = row["SerialNumber"]
        device.agent = Agent(device, cloud, sag, device.sn, ports={"3": "wan", "1": "lan"})
        device.agent.sections = f'[routing]\ndir = "{device.run_dir}/routing"\nvrrp_priority = {priority}\n'
        device.agent.start()
    online = lambda d: cloud.call("DescribeSagHa", SmartAGId=sag, SmartAGSn=d.sn)["TaskStates"][0]["State"] == "Succeed"
    for device in bed.members:
        within(10, "first contact", lambda d=device: online(d), device.agent.tail)
    cloud.call("AddSnatEntry", SmartAGId=sag, CidrBlock="10.1.0.0/24", SnatIp=TRANSLATED)
    return sag


class Connections:
    """TCP connections of the client through whichever device has the virtual address."""

    def __init__(self, bed, stack, port):
        own = lambda s: stack.enter_context(contextlib.closing(s))
        listener = own(bed.server.socket(socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((SERVER[4], port))
        listener.listen(CONNECTIONS)
        listener.settimeout(TIMEOUT)
        self.all = []
        for _ in range(CONNECTIONS):
            client = own(bed.client.socket(socket.AF_INET, socket.SOCK_STREAM))
            client.settimeout(TIMEOUT)
            client.connect((SERVER[4], port))
            accepted, peer = listener.accept()
            own(accepted).settimeout(TIMEOUT)
            assert peer[0] == TRANSLATED
            self.all.append((client, accepted))

    def go_on(self, word):
        for client, accepted in self.all:
            client.sendall(word)
            assert accepted.recv(100) == word
            accepted.sendall(word)
            assert client.recv(100) == word


def test_sessions_follow_by_calls_alone(bed, cloud, sag):
    a, b = bed.a, bed.b
    log = lambda: f"a: {a.agent.tail(15)}\n{a.ctl('ha', check=False)}\nb: {b.agent.tail(15)}\n{b.ctl('ha', check=False)}"
    ha = lambda device, **more: cloud.call("ModifySagHa", SmartAGId=sag, SmartAGSn=device.sn, **more)
    told = lambda: cloud.call("DescribeSmartAccessGatewayHa", SmartAGId=sag)
    assert not a.ctl("ha")["configured"] and not b.ctl("ha")["configured"]
    for device in (a, b):
        ha(device, Mode="STATIC", PortName="1", VirtualIp=VIRTUAL)
    took = within(6, "the devices know each other", lambda: a.linked() and b.linked(), log)
    print(f"linked and in sync {took:.1f} s after the second call")
    within(15, "the first device has the address", lambda: a.has_virtual() and not b.has_virtual(), log)
    state = lambda: told() | {"SmartAGId": None}
    within(4, "the API names both", lambda: (told().get("MainDeviceId"), told().get("BackupDeviceId")) == (a.sn, b.sn), state)
    assert told()["DeviceLevelBackupState"] == "ON"
    # The cloud has carried public keys and addresses, and not the key of the link.
    key = next(line for line in a.agent.in_force().splitlines() if line.startswith("key = ")).split('"')[1]
    assert len(key) == 64 and f'key = "{key}"' in b.agent.in_force()
    for file in cloud.folder.glob("cloud.db*"):
        assert key.encode() not in file.read_bytes()
    with contextlib.ExitStack() as stack:
        flows = Connections(bed, stack, 7000)
        flows.go_on(b"before")
        within(3, "the second device has the sessions", lambda: b.ctl("ha")["replicas"] >= CONNECTIONS, log)
        # The master loses its power.
        a.power_off()
        bed.traffic_to(b)
        died = time.monotonic()
        within(6, "the second device has the address", b.has_virtual, log)
        flows.go_on(b"at the other one")
        print(f"all {CONNECTIONS} connections go on {time.monotonic() - died:.1f} s after the power was lost")
        assert b.ctl("ha")["totals"]["released"] >= CONNECTIONS
        # It comes back empty, and takes the address when it has the sessions.
        a.plug()
        a.start()
        a.agent.start()
        within(15, "they are linked again", lambda: a.linked() and b.linked(), log)
        within(15, "it has the address again", lambda: a.has_virtual() and not b.has_virtual(), log)
        bed.traffic_to(a)
        flows.go_on(b"and back")
        # An agent that starts again keeps the key: the link stays.
        since = a.ctl("ha")["since"]
        a.agent.kill()
        a.agent.start()
        within(10, "its agent is back", lambda: a.agent.status() and a.has_virtual(), log)
        time.sleep(2)
        assert a.linked() and a.ctl("ha")["since"] >= since
        flows.go_on(b"still")
    # Undone by the opposite call, at both devices though only one is named.
    ha(b, Mode="NONE")
    off = lambda d: not d.ctl("ha")["configured"]
    within(3, "no link is left", lambda: off(a) and off(b), log)
    within(3, "the address stays with the device that still has it", lambda: a.has_virtual() and not b.has_virtual(), log)
    ha(a, Mode="NONE")
    within(3, "no address is left", lambda: not a.has_virtual(), log)
    assert off(a) and off(b)
