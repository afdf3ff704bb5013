"""What STUN clients find out about the NAT is what its configuration says (RFC 5780, RFC 3489).

coturn answers at the two addresses of the Internet host; its own client and another one query it.
"""

import itertools
import re
import shutil
import subprocess

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config
from harness.traffic import process, wait_listening
from harness.waiting import within

TOOLS = ("turnserver", "turnutils_natdiscovery", "stun")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.sag,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (packages coturn, stun-client)"),
]

INDEPENDENT, ADDRESS, BOTH = "endpoint-independent", "address-dependent", "address-and-port-dependent"
CONFIGURED = [(INDEPENDENT, INDEPENDENT), (INDEPENDENT, ADDRESS), (INDEPENDENT, BOTH), (ADDRESS, ADDRESS), (BOTH, BOTH)]
RFC5780 = {INDEPENDENT: "Endpoint Independent", ADDRESS: "Address Dependent", BOTH: "Address and Port Dependent"}
RFC3489 = {INDEPENDENT: "Independent Filter", ADDRESS: "Address Dependent Filter", BOTH: "Port Dependent Filter"}
PORT = 3478
# Sessions survive the reload, and with them their ports: each round has ports of its own, another attempt too.
LOCAL_PORTS = itertools.count(40_000, 100)


@pytest.fixture(scope="module")
def server(hidden):
    command = ["turnserver", "--stun-only", "-n", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"]
    command += ["--listening-ip", A.INET[4], "--listening-ip", A.NARROW[4]]
    command += ["--listening-port", PORT, "--alt-listening-port", PORT + 1]
    # Nothing of the machine's own is read or written.
    command += ["--pidfile", hidden.run_dir / "turn.pid", "--db", hidden.run_dir / "turn.db"]
    with process(hidden.inet, command, stdout=subprocess.DEVNULL):
        for port in (PORT, PORT + 1):
            wait_listening(hidden.inet, port, udp=True)
        yield


def discovered(lab, *options):
    """What coturn's client says: {"Mapping": …, "Filtering": …}, and all its words."""
    output = lab.lan1.out(["turnutils_natdiscovery", *options, "-L", A.LAN1[4], "-p", PORT, A.INET[4]], timeout=30)
    return {kind: behaviour for behaviour, kind in re.findall(r"NAT with (.*) (Mapping|Filtering)!", output)}, output


@pytest.mark.parametrize("mapping,filtering", CONFIGURED, ids=["ei-ei", "ei-ad", "ei-apd", "ad-ad", "apd-apd"])
def test_behaviour(gw_changed, lab, server, peers, mapping, filtering):
    gw = gw_changed(nat_config(mapping=mapping, filtering=filtering))
    local = next(LOCAL_PORTS)
    if mapping == BOTH:
        # One outside port serves sessions to many places, so the port is preserved wherever possible:
        # what the mapping depends on shows where another host has it.
        other = peers.udp(lab.lan2, port=local)
        dests = ((A.INET[4], PORT), (A.NARROW[4], PORT + 1))

        def has_the_port():
            for dest in dests:
                other.sendto(b"mine", dest)
            rows = gw.ctl("sessions", "--limit", "5000")["sessions"]
            return sum(s["src"] == A.LAN2[4] and s["sport"] == local for s in rows) == len(dests)

        within(5, "the other host has the port", has_the_port)
    # The other client waits for nothing that the first one does.
    old = lab.lan1.popen(["stun", A.INET[4], "-p", local + 10])
    found, output = discovered(lab, "-m", "-f", "-l", local)
    assert found == {"Mapping": RFC5780[mapping], "Filtering": RFC5780[filtering]}, output
    output = old.communicate(timeout=20)[0]
    words = "Dependent Mapping" if mapping == ADDRESS else f"Independent Mapping, {RFC3489[filtering]}"
    assert f"Primary: {words}" in output and "preserves ports" in output, output


def test_an_undisturbed_port_is_kept_everywhere(gw_changed, lab, server):
    """With both dependent on everything and no other host on the port, the mapping looks independent."""
    gw_changed(nat_config(mapping=BOTH, filtering=BOTH))
    found, output = discovered(lab, "-m", "-l", 43000)
    assert found == {"Mapping": RFC5780[INDEPENDENT]}, output
    assert output.count(f"UDP reflexive addr: {A.GW_WAN[4]}:43000") >= 2, output


def test_hairpinning(gw_changed, lab, server):
    gw_changed(nat_config(mapping=INDEPENDENT, filtering=INDEPENDENT))
    _, output = discovered(lab, "-H")
    assert "successful hairpinning" in output, output
