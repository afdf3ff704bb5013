"""What goes wrong around the agent: traffic continues and the system converges."""

import os
import signal
import time
from pathlib import Path

import pytest

from harness.cloud import ENDPOINT, Agent, Branch, api_names, cloud_of, crash_agent, pings, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.stream import Stream
from harness.traffic import http_server
from harness.trial import WIRE, Trials, line_rate, result

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

CRASH_BIN, CRASH_STEPS = crash_agent()


@pytest.fixture(scope="module")
def cloud(lab, tmp_path_factory):
    with cloud_of(lab, tmp_path_factory.mktemp("cloud")) as it:
        yield it


@pytest.fixture(scope="module")
def there(lab, gateway, cloud, tmp_path_factory):
    """A gateway of the cloud with its agent; whoami shows whether the WAN's SNAT is on."""
    gateway.ensure(api_names(lab_config()))
    cloud.start()
    sag, sn = cloud.gateway()
    it = Branch(lab, cloud, Agent(lab, cloud, sag, sn), sag, sn)
    with http_server(lab.inet, A.INET[4], tmp_path_factory.mktemp("www")):
        yield it
    it.agent.stop()


@pytest.fixture
def branch(there, gateway):
    """All of it running and in force, with the SNAT off."""
    if there.cloud.process is None:
        there.cloud.start()
    if gateway.running is None:
        gateway.start(api_names(lab_config()))
    if there.agent.process is None or there.agent.process.poll() is not None:
        there.agent.start()
    there.snat("DISABLE")
    within(10, "in force", lambda: there.in_force() and there.source() == A.LAN1[4], there.agent.tail)
    return there


def assert_complete(stream, log=lambda: ""):
    missing = stream.missing()
    assert not missing, f"{len(missing)} of {stream.sent} packets lost: {missing[:10]}\n{log()}"


@pytest.mark.slow
def test_cloud_away_for_long(branch, lab, wire, record_property):
    """The pauses between its attempts have grown to their maximum: the agent retries no later than that after the return."""
    branch.agent.stop()
    branch.agent.start(retry_max=8)
    within(10, "in force", branch.in_force, branch.agent.tail)
    with Stream(lab, wire) as stream:
        time.sleep(0.3)
        branch.cloud.kill()
        gone = time.monotonic()
        time.sleep(20)
        within(3, "hosts reach each other", lambda: branch.source() == A.LAN1[4])
        branch.cloud.start()
        back = time.monotonic()
        branch.snat("ENABLE")
        within(11, "in force after the cloud came back", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
        converged = time.monotonic()
        within(5, "reported", branch.in_force, branch.agent.tail)
    output = (f"away for {back - gone:.1f} s; a change made at the return is in force {converged - back:.2f} s after it; "
            f"{stream.sent} packets of an allowed flow meanwhile")
    print(output)
    record_property("outage", output)
    assert stream.sent > 2000, output
    assert_complete(stream, branch.agent.tail)
    branch.agent.stop()


def test_boot_without_the_cloud(branch, gateway):
    branch.snat("ENABLE")
    within(3, "in force", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    branch.agent.stop()
    branch.cloud.kill()
    gateway.kill()
    gateway.stop()
    gateway.start(api_names(lab_config()))
    assert branch.source() == A.LAN1[4], "the gateway's own file has no SNAT"
    branch.agent.start()
    within(2, "the last good configuration", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)


def test_gateway_killed(branch, gateway, lab, wire):
    branch.snat("ENABLE")
    within(3, "in force", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    with Stream(lab, wire) as stream:
        time.sleep(0.5)
        gateway.kill()
        time.sleep(1)
        # As a supervisor would: with the file that the agent keeps.
        gateway.start(branch.agent.in_force())
        within(3, "in force again", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
        within(5, "reported", branch.in_force, branch.agent.tail)
    assert_complete(stream, branch.agent.tail)


def test_somebody_else_applies_a_file(branch, gateway, lab):
    branch.snat("ENABLE")
    within(3, "in force", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    other = lab.run_dir / "other.toml"
    other.write_text(api_names(lab_config()).replace("sag-lab", lab.run_dir.name))
    gateway.ctl("config", "apply", str(other))
    within(3, "mended", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    within(3, "logged", lambda: "put right" in branch.agent.tail(5))


@pytest.mark.parametrize("step", CRASH_STEPS or [pytest.param(None, marks=pytest.mark.skip(reason="no agent with crash points: cargo build -p sag-agent"))])
def test_killed_at(branch, lab, wire, step):
    """Ends at a step of applying a change; the next start brings the change in force and reports to the cloud."""
    branch.agent.stop()
    with Stream(lab, wire) as stream:
        branch.agent.start(crash_at=step, bin_path=CRASH_BIN)
        # Some steps come with the first contact, others with the change.
        branch.snat("ENABLE")
        assert branch.agent.wait(10) == -signal.SIGABRT, branch.agent.tail()
        branch.agent.start()
        within(5, f"in force after {step}", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
        within(5, "reported", branch.in_force, branch.agent.tail)
    assert_complete(stream, branch.agent.tail)


def test_restored_database(branch):
    """An older backup: the revision goes backwards, then counts up to the old one with other changes."""
    cloud = branch.cloud
    backup = cloud.folder / "backup.db"
    cloud.backup(backup)
    branch.snat("ENABLE")
    within(3, "in force", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    within(3, "reported", branch.in_force)
    cloud.kill()
    cloud.restore(backup)
    cloud.start()
    within(5, "the backup's configuration", lambda: branch.source() == A.LAN1[4], branch.agent.tail)
    within(5, "reported", branch.in_force, branch.agent.tail)
    # The same number of changes, another content.
    cloud.kill()
    cloud.restore(backup)
    branch.agent.process.send_signal(signal.SIGSTOP)
    cloud.start()
    branch.mine("ModifySmartAccessGatewayUpBandwidth", UpBandwidthWan=77)
    branch.agent.process.send_signal(signal.SIGCONT)
    within(8, "the other content", lambda: branch.links().get(("internet", "up")) == 77_000_000, branch.agent.tail)
    branch.mine("ModifySmartAccessGatewayUpBandwidth", UpBandwidthWan=0)


def test_wrong_key(branch, tmp_path):
    """Without its key the agent logs it, and the gateway keeps forwarding."""
    branch.agent.stop()
    wrong = tmp_path / "key"
    wrong.touch(mode=0o600)
    wrong.write_text("AccessKeyId: nobody\nAccessKeySecret: nothing\n")
    branch.agent.start(access_key_file=str(wrong))
    within(5, "said so", lambda: "InvalidAccessKeyId" in branch.agent.tail(), branch.agent.tail)
    assert pings(branch.lab.lan1, A.INET[4])
    branch.agent.stop()
    wrong.chmod(0o644)
    branch.agent.start(access_key_file=str(wrong))
    assert branch.agent.wait() == 1
    assert "chmod 600" in branch.agent.tail()


def test_tls_is_verified(branch):
    """A certificate of an unknown authority is refused, and accepted when ca_file names it."""
    cloud, agent = branch.cloud, branch.agent
    agent.stop()
    cloud.kill()
    made = cloud.certificate()
    cloud.start(tls=made)
    try:
        agent.start(endpoint=f"https://{ENDPOINT}")
        within(5, "refused", lambda: "TLS:" in agent.tail() and "ca_file" in agent.tail(), agent.tail)
        assert "in contact" not in agent.tail(3)
        agent.stop()
        agent.start(endpoint=f"https://{ENDPOINT}", ca_file=str(made[0]))
        within(5, "accepted", lambda: "in contact" in agent.tail(3), agent.tail)
    finally:
        agent.stop()
        cloud.kill()


def test_documented_operations_only(branch):
    """The extension off: the same configuration, by polling."""
    branch.agent.stop()
    branch.agent.start(extension="off")
    branch.snat("ENABLE")
    within(5, "SNAT", lambda: branch.source() == A.GW_WAN[4], branch.agent.tail)
    acl = branch.call("CreateACL", Name="polled")["AclId"]
    for n in range(60):
        # More than a page.
        branch.call("AddACLRule", AclId=acl, Type="WAN", Policy="drop", Priority=100 if n else 50, Direction="out",
                    IpProtocol="tcp" if n else "icmp", SourceCidr="192.0.2.0/26", DestCidr=f"203.0.113.{n + 100}/32" if n else "203.0.113.0/26",
                    SourcePortRange="-1/-1", DestPortRange="-1/-1")
    branch.mine("AssociateACL", AclId=acl)
    within(5, "ACL", lambda: not pings(branch.lab.lan1, A.INET[4]), branch.agent.tail)
    lab = branch.lab
    shown = branch.document()
    assert shown.count("[[acl.rule]]") == 60
    forwards = [
        branch.call("AddDnatEntry", SagId=branch.sag, IpProtocol="TCP", ExternalPort=port, InternalIp=A.LAN1[4], InternalPort="80", **kind)
        for port, kind in (("8081", dict(Type="Internet")), ("8082", dict(Type="Intranet", ExternalIp="10.9.9.9")))
    ]
    within(5, "DNAT of both types", lambda: all(f'"{e["DnatEntryId"]}"' in branch.document() for e in forwards), branch.agent.tail)
    by_polling = canonical(branch.document())
    branch.agent.stop()
    branch.agent.start()
    within(5, "the long poll", branch.in_force, branch.agent.tail)
    assert canonical(branch.document()) == by_polling
    for entry in forwards:
        branch.call("DeleteDnatEntry", SagId=branch.sag, DnatEntryId=entry["DnatEntryId"])
    branch.mine("DisassociateACL", AclId=acl)
    within(3, "ACL gone", lambda: pings(lab.lan1, A.INET[4]), branch.agent.tail)
    branch.call("DeleteACL", AclId=acl)


def canonical(text):
    """The document without comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


CHANGES = int(os.environ.get("SAG_CHANGES", "1000"))
GIGABIT, SIZE = 1e9, 1518
FLOWS = 64


@pytest.fixture
def trials(lab):
    it = Trials(lab, FLOWS, "--size", SIZE)
    yield it
    it.close()


def offered(seen):
    """bit/s on the line."""
    return seen["offered_pps"] * (SIZE + WIRE) * 8


def skip_where_nothing_offers_a_gigabit(lab, trials):
    """Where a bare redirect does not get it either."""
    with trials.bare(lab.prefix) as endpoints:
        most = offered(trials.run("--seconds", 3, "--rate", round(line_rate(1.2 * GIGABIT, SIZE)), endpoints=endpoints))
    if most < GIGABIT:
        pytest.skip(f"this machine offers {most / 1e9:.2f} Gbit/s to a bare redirect, less than 1 Gbit/s")


def rss_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def heap_kb(pid):
    """Of the thread that compiles configurations; packet memory and maps are not in it."""
    lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    sizes = [lines[i + 1 : i + 25] for i, line in enumerate(lines) if line.endswith("[heap]")]
    return sum(int(line.split()[1]) for block in sizes for line in block if line.startswith("Rss:"))


@pytest.mark.slow
@pytest.mark.alone
def test_a_thousand_changes(branch, gateway, lab, trials, record_property):
    """One after the other while 1 Gbit/s flows: nothing of an allowed flow is lost, and no process grows."""
    acl = branch.call("CreateACL", Name="churn")["AclId"]
    rule = branch.call("AddACLRule", AclId=acl, Type="WAN", Policy="drop", Priority=1, Direction="out", IpProtocol="tcp",
                       SourceCidr="192.0.2.0/26", DestCidr="203.0.113.0/24", SourcePortRange="-1/-1", DestPortRange="1/1")["AcrId"]
    branch.mine("AssociateACL", AclId=acl)
    within(3, "in force", branch.in_force)
    change = lambda n: branch.call("ModifyACLRule", AclId=acl, AcrId=rule, DestPortRange=f"{n}/{n}")
    # Neighbours and sessions, one flow after the other.
    made = trials.run("--frames", 2 * FLOWS, "--window", 8)
    assert (made["lost"], made["flows"]) == (0, FLOWS), made
    trials.aside(branch.agent.process.pid, branch.cloud.process.pid, branch.cloud.shell.pid)
    # How fast changes go meanwhile, and how much of the rate the source loses to them.
    rate = line_rate(1.1 * GIGABIT, SIZE)
    rehearsal = trials.start("--rate", round(rate), "--seconds", 3)
    started, n = time.monotonic(), 0
    while rehearsal.poll() is None:
        n += 1
        change(n)
    pace = (time.monotonic() - started) / n
    seen = result(rehearsal)
    assert seen["sent"], seen
    rate *= min(1.5, max(1.0, 1.1 * GIGABIT / offered(seen)))

    pids = {"agent": branch.agent.process.pid, "gateway": gateway.pid(), "cloud": branch.cloud.process.pid}
    epoch = gateway.status()["config_epoch"]
    overruns = trials.overruns()
    flowing = trials.start("--rate", round(rate), "--seconds", round(CHANGES * pace * 1.2 + 3))
    changes, before = 0, {}
    while changes < CHANGES or (changes < 4 * CHANGES and flowing.poll() is None):
        changes += 1
        change(changes % 60_000 + 1)
        if changes == CHANGES // 5:
            before = {name: rss_kb(pid) for name, pid in pids.items()} | {"heap": heap_kb(pids["gateway"])}
        if changes == CHANGES:
            assert flowing.poll() is None, "the traffic goes on longer than the changes"
    last = changes % 60_000 + 1
    within(5, "the last one is in force", lambda: f'"{last}/{last}"' in branch.document())
    seen = result(flowing)
    overruns = trials.overruns() - overruns
    grown = {name: rss_kb(pid) - before[name] for name, pid in pids.items()}
    grown["heap"] = heap_kb(pids["gateway"]) - before["heap"]
    epochs = (gateway.status()["config_epoch"] - epoch) % 2**32
    output = (f"{changes} changes, {epochs} configurations in force one after the other, {seen['sent']} packets of {FLOWS} flows at "
            f"{offered(seen) / 1e9:.2f} Gbit/s, {seen['lost']} lost ({overruns} overran a wire's ring); grown since change {CHANGES // 5}, KiB: {grown}")
    print(output)
    record_property("changes", output)
    assert seen["lost"] <= overruns <= seen["sent"] // 100, f"{output}\n{seen}\n{branch.agent.tail()}"
    assert (seen["flows"], seen["foreign"]) == (FLOWS, 0), output
    assert epochs > 10, output
    # The database keeps pages of the audit log in memory. The gateway's packet memory is counted when it is first
    # used, which may be late: what a configuration leaves behind would be in its heap.
    for name, most in (("agent", 2048), ("heap", 4096), ("gateway", 65_536), ("cloud", 16_384)):
        assert grown[name] < most, output
    branch.mine("DisassociateACL", AclId=acl)
    branch.call("DeleteACL", AclId=acl)
    if offered(seen) < GIGABIT:
        skip_where_nothing_offers_a_gigabit(lab, trials)
        pytest.fail(f"less than 1 Gbit/s was offered: {output}")
