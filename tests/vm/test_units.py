"""The three units together: a cloud, an agent that takes the gateway's configuration from it, and what systemd thinks of them."""

import json
import re

import pytest

from bed.site import ECHO_PORT, SERVICE, Cloud, reaches
from harness.cloud import ORDER
from harness.waiting import within

# `systemd-analyze security` from 0 (all restricted) to 10.
EXPOSURE = {"sag-vcpe": 3.5, "sag-agent": 2.5, "sag-cloud": 2.5}
# As the unit runs it: with the same user, who is there only while the unit is, and in its directory.
AS_CLOUD = (
    "systemd-run --quiet --pipe --wait -p DynamicUser=yes -p User=sag-cloud -p StateDirectory=sag-cloud "
    "-p StateDirectoryMode=0700 -p UMask=0077"
)


@pytest.fixture(scope="module")
def cloud(gateway):
    """The cloud of the guest, with a key."""
    gateway.run("systemctl start sag-cloud", timeout=240)
    out = gateway.out(f"{AS_CLOUD} sag-cloud access-key create --name vm --db sqlite:///var/lib/sag-cloud/cloud.db")
    return Cloud(gateway, [line.split(": ")[1] for line in out.splitlines()])


@pytest.fixture(scope="module")
def branch(gateway, cloud):
    """The agent, started by its unit: (gateway's id, serial number)."""
    sag = cloud.call("CreateSmartAccessGateway", **ORDER)["SmartAGId"]
    cloud.call("ActivateSmartAccessGateway", SmartAGId=sag)
    sn = cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["Devices"]["Device"][0]["SerialNumber"]
    keys = {
        "endpoint": "http://127.0.0.1:8180", "region_id": "cn-shanghai", "smart_ag_id": sag, "smart_ag_sn": sn,
        "access_key_file": "/etc/sag/access-key", "base_config": "/etc/sag/vcpe.toml", "dhcp_client": "off",
    }  # fmt: skip
    ports = '[ports]\n"0" = { device = "wan" }\n"1" = { device = "lan" }\n'
    gateway.write("/etc/sag/agent.toml", "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items()) + ports)
    key_id, secret = cloud.key
    gateway.write("/etc/sag/access-key", f"AccessKeyId: {key_id}\nAccessKeySecret: {secret}\n")
    gateway.run("chown sag:sag /etc/sag/access-key /etc/sag/agent.toml; chmod 600 /etc/sag/access-key /etc/sag/agent.toml")
    gateway.run("systemctl start sag-agent", timeout=240)
    about = lambda: cloud.call("DescribeSAGDeviceInfo", SmartAGId=sag, SmartAGSn=sn)["SynStatus"]
    within(120, "the configuration is in force", lambda: about() == "Synchronized", lambda: gateway.journal("sag-agent"))
    return sag, sn


def test_all_three_run_confined(gateway, branch):
    for name in ("sag-vcpe", "sag-agent", "sag-cloud"):
        unit = gateway.unit(name)
        assert (unit["ActiveState"], unit["NRestarts"]) == ("active", "0"), gateway.journal(name)
        said = gateway.journal(name, 200)
        assert "privileges dropped" in said and "system calls confined (seccomp)" in said, said
    assert gateway.unit("sag-agent")["User"] == "sag"


def test_the_clouds_rules_reach_the_packets(gateway, site, cloud, branch):
    sag, sn = branch
    assert SERVICE[4] in gateway.out("ip -br addr show wan")
    # The Internet knows no way to the branch's IPv4 addresses.
    cloud.call("ModifySagWanSnat", SmartAGId=sag, SmartAGSn=sn, Snat="ENABLE")
    within(30, "open", lambda: reaches(site))
    acl = cloud.call("CreateACL", Name="office")["AclId"]
    rule = dict(SourceCidr="0.0.0.0/0", DestCidr="0.0.0.0/0", SourcePortRange="-1/-1", DestPortRange=f"{ECHO_PORT}/{ECHO_PORT}")
    cloud.call("AddACLRule", AclId=acl, Type="WAN", Policy="drop", Priority=1, IpProtocol="tcp", Direction="out", **rule)
    cloud.call("AssociateACL", AclId=acl, SmartAGId=sag)
    within(30, "closed", lambda: not reaches(site))
    cloud.call("DisassociateACL", AclId=acl, SmartAGId=sag)
    within(30, "open again", lambda: reaches(site))


@pytest.mark.parametrize("name", ["sag-agent", "sag-cloud"])
def test_each_restarts(gateway, branch, name):
    before = gateway.unit(name)["MainPID"]
    gateway.run(f"systemctl restart {name}", timeout=240)
    assert gateway.unit(name)["MainPID"] not in ("0", before)


def test_exposure(gateway, seen):
    for name, most in EXPOSURE.items():
        said = gateway.out(f"systemd-analyze security --no-pager {name}.service", check=False)
        figure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
        seen[f"exposure of {name}"] = str(figure)
        assert figure <= most, said


def test_no_unit_was_refused_a_system_call(gateway, branch):
    assert not gateway.refusals()
