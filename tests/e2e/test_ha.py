"""Sessions follow from one gateway to the other: a master that dies, one that comes back, a key that is wrong."""

import contextlib
import json
import socket
import time

import pytest

from harness.cloud import binary
from harness.pair import CLIENT, SERVER, Pair
from harness.routers import program
from harness.waiting import TIMEOUT, within

pytestmark = pytest.mark.sag

CONNECTIONS = {4: 180, 6: 20}
FLOWS = 20


@pytest.fixture(scope="module")
def pair():
    made = Pair()
    try:
        made.a.start()
        made.b.start()
        made.move_to(made.a)
        yield made
    finally:
        made.down()


class Flows:
    """TCP connections and UDP flows through the pair."""

    def __init__(self, pair, stack):
        self.tcp, self.udp = [], []
        own = lambda s: stack.enter_context(contextlib.closing(s))
        for family, count in CONNECTIONS.items():
            kind = socket.AF_INET if family == 4 else socket.AF_INET6
            listener = own(pair.server.socket(kind, socket.SOCK_STREAM))
            listener.bind((SERVER[family], 7000))
            listener.listen(count)
            listener.settimeout(TIMEOUT)
            for _ in range(count):
                client = own(pair.client.socket(kind, socket.SOCK_STREAM))
                client.settimeout(TIMEOUT)
                client.connect((SERVER[family], 7000))
                accepted, peer = listener.accept()
                own(accepted).settimeout(TIMEOUT)
                self.tcp.append((client, accepted, peer[0]))
            server = own(pair.server.socket(kind, socket.SOCK_DGRAM))
            server.bind((SERVER[family], 7001))
            server.settimeout(TIMEOUT)
            for _ in range(FLOWS):
                client = own(pair.client.socket(kind, socket.SOCK_DGRAM))
                client.settimeout(TIMEOUT)
                client.connect((SERVER[family], 7001))
                client.send(b"first")
                self.udp.append((client, server, server.recvfrom(100)[1]))
                server.sendto(b"answer", self.udp[-1][2])
                assert client.recv(100) == b"answer"

    def addresses(self):
        return {peer for _, _, peer in self.tcp} | {peer[0] for _, _, peer in self.udp}

    def go_on(self, word, answers_first=False):
        """Every flow carries data both ways, between the ends that it had."""
        for client, server, _ in self.tcp:
            ends = (server, client) if answers_first else (client, server)
            for one, other in (ends, ends[::-1]):
                one.sendall(word)
                assert other.recv(100) == word
        for client, server, seen_as in self.udp:
            if answers_first:
                server.sendto(word, seen_as)
                assert client.recv(100) == word
            client.send(word)
            assert server.recvfrom(100) == (word, seen_as)


def eventually(check):
    within(10, "the gateways agree", check)


def in_sync(member):
    ha = member.ha()
    return ha["in_sync"] and ha["peer_in_sync"]


def test_sessions_follow_there_and_back(pair):
    a, b = pair.a, pair.b
    eventually(lambda: in_sync(a) and in_sync(b))
    with contextlib.ExitStack() as stack:
        flows = Flows(pair, stack)
        flows.go_on(b"before")
        assert flows.addresses() == {"198.51.100.1", CLIENT[6]}
        count = len(flows.tcp) + len(flows.udp)
        eventually(lambda: b.ha()["replicas"] >= count)
        assert a.ha()["replicas"] == 0
        # The master dies.
        a.kill()
        pair.move_to(b)
        flows.go_on(b"at the other one")
        ha = b.ha()
        assert not ha["linked"] and ha["totals"]["released"] >= count and ha["replicas"] == 0
        # It comes back, and gets everything before it gets the traffic.
        a.plug()
        a.start()
        eventually(lambda: in_sync(a) and in_sync(b))
        assert a.sagctl("ha", "--check", check=False).returncode == 0
        flows.go_on(b"still there")
        eventually(lambda: b.ha()["own"] >= count and a.ha()["replicas"] >= count)
        pair.move_to(a)
        flows.go_on(b"and back", answers_first=True)
        eventually(lambda: a.ha()["own"] >= count and b.ha()["replicas"] >= count)
        # A planned change, without any loss of the link.
        pair.move_to(b)
        flows.go_on(b"once more")
        assert b.ha()["linked"]
        eventually(lambda: a.ha()["replicas"] >= count)
        pair.move_to(a)
        flows.go_on(b"home")
    # What ends at one ends at the other.
    eventually(lambda: not a.ctl("sessions", "--count", "--proto", "tcp", "--state", "established")["total"])


def test_a_busy_gateway_hears_of_its_peer(pair):
    """While sessions come all the time each knows of the other that it has them."""
    a, b = pair.a, pair.b
    with contextlib.ExitStack() as stack:

        def more():
            """Sessions that nobody has seen."""
            s = stack.enter_context(contextlib.closing(pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            s.sendto(b"new", (SERVER[4], 7002))
            time.sleep(0.02)
            return a.ha()["peer_in_sync"] and b.ha()["in_sync"]

        b.stop()
        b.start()
        within(5, "they know", more)


def test_another_key_is_refused_by_name(pair):
    pair.b.stop()
    pair.b.start(key="a5" * 32)
    eventually(lambda: "key" in (pair.b.ha()["last_error"] or ""))
    assert not pair.b.ha()["linked"]
    eventually(lambda: "key" in (pair.a.ha()["last_error"] or ""))
    text = pair.b.sagctl("ha").stdout
    assert "no link" in text and "key" in text
    # A gateway without its peer gets the traffic after a while.
    eventually(lambda: pair.b.sagctl("ha", "--check", check=False).returncode == 0)


AGENT = """
endpoint = "http://127.0.0.1:1"
region_id = "cn-shanghai"
smart_ag_id = "sag-1"
smart_ag_sn = "sn-1"
access_key_id = "unused"
access_key_secret = "unused"
vcpe_socket = "{socket}"
[routing]
dir = "{place}"
[ports]
"1" = {{ device = "lan" }}
"""
VIRTUAL = "10.1.0.9"


@pytest.fixture
def routing_service(pair):
    """The service that owns keepalived, beside the second gateway: called with a request."""
    program("keepalived", "/usr/sbin/keepalived")
    member = pair.b
    place = member.run_dir / "routing"
    conf = member.run_dir / "agent.toml"
    conf.write_text(AGENT.format(socket=member.run_dir / "vcpe.sock", place=place))
    conf.chmod(0o600)
    member.ns.ip("addr replace 10.1.0.3/24 dev lan")
    with open(member.run_dir / "routing.log", "ab") as log:
        command = [binary("sag-agent", "SAG_AGENT_BIN"), "routing-daemons", "--config", conf]
        process = member.ns.popen(command, stdout=log, stderr=log)

    def call(request):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(place / "control.sock"))
            s.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(s.makefile().readline())["Ok"]

    try:
        within(5, "the service runs", (place / "control.sock").exists, (member.run_dir / "routing.log").read_text)
        yield call
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def test_a_virtual_address_waits_for_the_sessions(pair, routing_service):
    """Its link is refused, so the second gateway does not know for 5 s whether there are sessions that it has not."""
    b = pair.b
    b.stop()
    b.start(key="a5" * 32)
    has = lambda: f" {VIRTUAL}/" in b.ns.out(["ip", "-4", "-o", "addr", "show", "dev", "lan"])
    state = lambda: routing_service("Show")["Vrrp"]
    vrrp = {"port": "1", "device": "lan", "address": VIRTUAL, "router": 9, "priority": 100}
    routing_service({"Set": {"vrrp": vrrp}})
    within(3, "it waits", lambda: state() and state()["State"] == "FAULT", state)
    assert "not here yet" in state()["Obstacle"] and not has()
    within(10, "there is no other one, and it takes the address", lambda: state()["State"] == "MASTER" and has(), state)
    assert b.ha()["ready"] and not state()["Obstacle"]
    b.process.kill()
    b.process.wait(TIMEOUT)
    within(9, "a gateway that has died gives it away", lambda: state()["State"] == "FAULT" and not has(), state)
    assert "does not answer" in state()["Obstacle"]
