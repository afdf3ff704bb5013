"""Sessions follow from one gateway to the other: a master that dies, one that comes back, a key that is wrong."""

import contextlib
import socket

import pytest

from harness.pair import CLIENT, SERVER, Pair
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
