"""A WAN port with the MTU of PPPoE whose far side does not say so: real TCP connections, with `mss_clamp` and without."""

import contextlib
import json
import socket

import pytest

from harness.lab import Addresses as A
from harness.nat import Peers, nat_config

pytestmark = pytest.mark.sag

PORT = 7411
# RFC 2516 section 7.
MTU = 1492
# Headers of IP and TCP, the latter with the timestamps that Linux sends (RFC 7323).
HEADERS = {4: 40 + 12, 6: 60 + 12}
SIZE = 300_000


@pytest.fixture
def black_hole(lab):
    """The line takes MTU bytes, and its provider sends no ICMP errors about larger ones."""
    lab.gw.ip(f"link set wan mtu {MTU}")
    lab.wan.ip(f"link set gw mtu {MTU}")
    rules = {
        "nftables": [
            {"add": {"table": {"family": "inet", "name": "hole"}}},
            {"add": {"chain": {"family": "inet", "table": "hole", "name": "out", "type": "filter", "hook": "output",
                               "prio": 0, "policy": "accept"}}},
            *({"add": {"rule": {"family": "inet", "table": "hole", "chain": "out", "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": "type"}}, "right": kind}},
                {"drop": None}]}}}
              for protocol, kind in (("icmp", "destination-unreachable"), ("icmpv6", "packet-too-big"))),
        ]
    }
    lab.wan.run(["nft", "-j", "-f", "-"], input=json.dumps(rules))
    forget_paths(lab)
    yield
    lab.wan.run(["nft", "delete", "table", "inet", "hole"])
    lab.gw.ip("link set wan mtu 1500")
    lab.wan.ip("link set gw mtu 1500")
    forget_paths(lab)


def forget_paths(lab):
    for ns in (lab.lan1, lab.inet):
        ns.ip("route flush cache")
        ns.ip("-6 route flush cache")


@pytest.fixture
def peers():
    it = Peers()
    yield it
    it.close()


def connected(peers, lab, family):
    """A connection from the branch to the Internet: its ends."""
    unspecified = {4: "0.0.0.0", 6: "::"}[family]
    listener = peers.listen(lab.inet, A.INET[family], PORT)
    client = peers.connect(lab.lan1, (A.INET[family], PORT), source=(unspecified, 0))
    server, _ = peers.accept(listener)
    listener.close()
    return client, server


def arrives(sender, receiver, patience=3.0):
    """Whether so many bytes come through, with no longer pauses."""
    sender.setblocking(False)
    receiver.settimeout(patience)
    data, got = memoryview(bytes(SIZE)), 0
    try:
        while got < SIZE:
            if data:
                with contextlib.suppress(BlockingIOError):
                    data = data[sender.send(data):]
            got += len(receiver.recv(1 << 16))
    except TimeoutError:
        return False
    return True


def segment_sizes(client, server):
    return [sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) for sock in (client, server)]


def test_connections_fit_a_line_that_does_not_speak_of_its_mtu(gw_changed, lab, black_hole, peers, family):
    gw_changed(nat_config(wan="mss_clamp = true\n"))
    client, server = connected(peers, lab, family)
    # Both ends have been asked for segments that fit.
    assert segment_sizes(client, server) == [MTU - HEADERS[family]] * 2
    assert arrives(server, client), "a download"
    assert arrives(client, server), "an upload"


def test_without_it_a_download_hangs(gw_changed, lab, black_hole, peers, family):
    gw_changed(nat_config())
    client, server = connected(peers, lab, family)
    assert segment_sizes(client, server) == [1500 - HEADERS[family]] * 2
    assert not arrives(server, client, patience=1.5)
