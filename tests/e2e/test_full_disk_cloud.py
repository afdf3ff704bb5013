"""The cloud's database and the agent's state on a disk that is full or read-only: what can be read is answered, what cannot
be written is refused or said by name, what was acknowledged is there, and it goes on by itself when there is room."""

import time

import pytest

from harness.cloud import Agent, Branch, SdkError, api_names, cloud_of, within
from harness.config import lab_config
from harness.disk import fill, remount, small_disk
from harness.lab import Addresses as A
from harness.traffic import http_server

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

REFUSED = "ServiceUnavailable"


@pytest.fixture
def disk(lab):
    with small_disk(lab.run_dir / "disk", 4 << 20) as folder:
        yield folder


def acls(cloud):
    rows = cloud.call("DescribeACLs", PageSize=50)["Acls"]["Acl"]
    return {row["Name"] for row in rows}


def until_refused(cloud, made, most=200):
    """Creates lists until one is refused; the names of the others are added to `made`."""
    for n in range(most):
        name = f"list-{len(made)}-{n}"
        try:
            cloud.call("CreateACL", Name=name)
        except SdkError as e:
            assert e.code == REFUSED, e
            return
        made.add(name)
    raise AssertionError("nothing was refused")


def log_lines(cloud, event):
    return [line for line in (cloud.folder / "cloud.log").read_text().splitlines() if event in line]


def test_database_on_a_full_disk(lab, disk):
    with cloud_of(lab, disk) as cloud:
        cloud.start()
        made = {"first"}
        cloud.call("CreateACL", Name="first")
        filler = fill(disk)
        until_refused(cloud, made)
        # What is there is answered.
        assert acls(cloud) == made
        with pytest.raises(SdkError, match="nothing was changed"):
            cloud.call("CreateACL", Name="refused")
        failed = log_lines(cloud, "database-failed")
        assert len(failed) == 1 and "full" in failed[0] and str(cloud.db) in failed[0], failed
        assert log_lines(cloud, "internal error") == []
        filler.unlink()
        cloud.call("CreateACL", Name="last")
        made.add("last")
        assert acls(cloud) == made and len(log_lines(cloud, "database-written")) == 1
        cloud.hang_up()
        cloud.kill()
        cloud.start()
        assert acls(cloud) == made, "what was acknowledged is there"


def test_agent_on_a_read_only_disk(lab, gateway, disk, tmp_path):
    """Changes of the cloud are in force, the agent starts, and both are written down later."""
    gateway.ensure(api_names(lab_config()))
    (tmp_path / "cloud").mkdir()
    with cloud_of(lab, tmp_path / "cloud") as cloud, http_server(lab.inet, A.INET[4], tmp_path):
        cloud.start()
        sag, sn = cloud.gateway()
        agent = Agent(lab, cloud, sag, sn, state_dir=str(disk), vcpe_config=str(disk / "vcpe.toml")).start()
        branch = Branch(lab, cloud, agent, sag, sn)
        try:
            within(10, "first contact", branch.in_force, agent.tail)
            good, addresses = disk / "last-good.json", disk / "addresses.json"
            within(3, "written down", good.exists)
            remount(disk, "ro")
            branch.snat("ENABLE")
            branch.soon("SNAT", lambda: branch.source() == A.GW_WAN[4], 3)
            branch.device("ModifySagLan", PortName="4", IPType="STATIC", IP="10.44.0.1", Mask="255.255.255.0")
            branch.soon("the address", lambda: "10.44.0.1/24" in lab.gw.out("ip -4 addr show dev lan-b"), 3)
            within(5, "in force, for the cloud too", branch.in_force, agent.tail)
            time.sleep(2.5)
            said = [line for line in agent.log.read_text().splitlines() if "file-failed" in line]
            files = [line.rsplit("file=", 1)[1] for line in said]
            # Once each, whatever is tried again every second.
            assert len(files) == len(set(files)) and all("Read-only file system" in line for line in said), said
            for name in ("last good configuration", "list of addresses"):
                assert any(name in file for file in files), said
            # Without contact to the cloud, by what it could write down the last time.
            agent.kill()
            cloud.kill()
            agent.start()
            within(5, "the last good one", lambda: branch.source() == A.LAN1[4], agent.tail)
            cloud.start()
            within(10, "the new one", lambda: branch.source() == A.GW_WAN[4], agent.tail)
            remount(disk, "rw")
            within(5, "written down", lambda: "10.44.0.1" in good.read_text())
            within(5, "and the addresses", lambda: addresses.exists() and "10.44.0.1" in addresses.read_text())
            within(3, "said", lambda: agent.log.read_text().count("file-written") >= 2)
        finally:
            agent.stop()
            gateway.stop()
