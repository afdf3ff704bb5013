"""Policies of users, over the wire: what a policy denies is neither shown nor changed, whatever names it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from clients import V1, ApiError, Record
from conftest import BIN, access_key
from helpers import gateway, name
from test_protocol import KEY_SECONDS
from test_rules import LOG
from wire import send, signed

ALLOW_ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


class Account:
    """An account, and a user of it with policies."""

    def __init__(self, server: Any, tmp_path: Path) -> None:
        self.server, self.path = server, tmp_path / "policy.json"
        self.account = name(f"policies-{os.getpid()}")
        self.key = access_key(server.db, self.account)
        self.user_key = access_key(server.db, self.account, "limited")
        self.owner = V1(server.endpoint, self.key, Record())
        self.user = V1(server.endpoint, self.user_key, Record())

    def policy(self, *statements: dict[str, Any], wait: bool = True) -> subprocess.CompletedProcess[str]:
        self.path.write_text(json.dumps({"Version": "1", "Statement": statements}))
        done = subprocess.run(
            [BIN, "policy", "--account", self.account, "--user", "limited", "--name", "p", "--file", self.path,
             *self.server.db],
            capture_output=True, text=True,
        )
        if wait:
            assert done.returncode == 0, done.stderr
            time.sleep(KEY_SECONDS)
        return done

    def send(self, action: str, **params: Any) -> tuple[int, str]:
        """A call of the user, with these parameters alone."""
        return send(self.server, signed(self.user_key, "GET", action, **{"RegionId": None, **params}))

    def refused(self, action: str, **params: Any) -> None:
        status, text = self.send(action, **params)
        assert status in (400, 403), (action, params, status, text)
        assert json.loads(text)["Code"] in ("Forbidden", "Forbbiden.SubUser"), (action, params, text)


@pytest.fixture
def account(server: Any, tmp_path: Path) -> Account:
    return Account(server, tmp_path)


def deny(*resources: str) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": "*", "Resource": [f"acs:smartag:{r}" for r in resources]}


def test_secrets_of_a_denied_gateway_under_any_name(account: Account) -> None:
    sag, sns = gateway(account.owner)
    free, _ = gateway(account.owner)
    pull = dict(SmartAGId=sag, SmartAGSn=sns[0], Revision="0")
    config = send(account.server, signed(account.key, "GET", "PullSmartAGConfig", **pull))[1]
    secret = json.loads(config)["Config"]["SecretKey"]
    # 000:638 to 668, 001:53: the documented name; the other one is that of older policies.
    for resource in (f"*:*:smartag/{sag}", f"*:*:smartaccessgateway/{sag}", f"cn-shanghai:*:smartag/{sag}"):
        account.policy(ALLOW_ALL, deny(resource))
        for params in (
            dict(SmartAGId=sag, RegionId="cn-shanghai"), dict(SmartAGId=sag), dict(InstanceId=sag), dict(SagId=sag),
            dict(OriginSmartAGId=sag), dict(SmartAGId=free, InstanceId=sag), dict(),
        ):
            status, text = account.send("PullSmartAGConfig", SmartAGSn=sns[0], Revision="0", **params)
            assert status != 200 and secret not in text, (resource, params, text)
        for params in (dict(SmartAGId=sag, RegionId="cn-shanghai"), dict(InstanceId=sag, RegionId="cn-shanghai")):
            status, text = account.send("DescribeSmartAccessGatewayAttribute", **params)
            assert status != 200 and sns[0] not in text, (resource, params, text)
    assert account.user.call("DescribeSmartAccessGatewayAttribute", SmartAGId=free)["SmartAGId"] == free


def test_lists_show_what_is_allowed(account: Account) -> None:
    owner, user = account.owner, account.user
    hidden, sns = gateway(owner)
    shown, _ = gateway(owner)
    acl, open_acl = (owner.call("CreateACL", Name=n)["AclId"] for n in ("hidden", "shown"))
    ccn = owner.call("CreateCloudConnectNetwork", Name="hidden")["CcnId"]
    log = owner.call("CreateFlowLog", **LOG)["FlowLogId"]
    for sag in (hidden, shown):
        for a in (acl, open_acl):
            owner.call("AssociateACL", SmartAGId=sag, AclId=a)
        owner.call("AssociateFlowLog", SmartAGId=sag, FlowLogId=log)
        owner.call("BindSmartAccessGateway", SmartAGId=sag, CcnId=ccn)
    account.policy(ALLOW_ALL, deny(f"*:*:smartag/{hidden}", f"*:*:acl/{acl}", f"*:*:ccn/{ccn}"))
    lists = ("DescribeSmartAccessGateways", "DescribeACLs", "DescribeCloudConnectNetworks", "DescribeFlowLogSags",
             "DescribeQoses", "ListSmartAGByAccessPoint", "DescribeBindableSmartAccessGateways")
    named = [{}, {"SmartAGIds.1": hidden}, {"SmartAGId": hidden}, {"SerialNumber": sns[0]}, {"AclIds": acl},
             {"CcnId": ccn}, {"AclIds": f"{acl},{open_acl}"}]
    for action in lists:
        for params in named:
            _, text = account.send(action, FlowLogId=log, AccessPointId="101", RegionId="cn-shanghai", **params)
            assert not [x for x in (hidden, sns[0], acl, ccn) if x in text], (action, params, text)
    gateways = user.call("DescribeSmartAccessGateways", PageSize=1)
    assert gateways["TotalCount"] == 1
    row = gateways["SmartAccessGateways"]["SmartAccessGateway"][0]
    assert (row["SmartAGId"], row["AclIds"], row["AssociatedCcnId"]) == (shown, open_acl, "")
    acls = user.call("DescribeACLs")
    assert (acls["TotalCount"], acls["Acls"]["Acl"][0]["SagCount"]) == (1, "1")
    assert user.call("DescribeCloudConnectNetworks")["TotalCount"] == 0
    sags = user.call("DescribeFlowLogSags", FlowLogId=log)
    assert (sags["TotalCount"], sags["Sags"]["Sag"][0]["SmartAGId"]) == (1, shown)
    assert user.call("DescribeFlowLogs", FlowLogId=log)["FlowLogs"]["FlowLogSetType"][0]["TotalSagNum"] == 1


def test_one_gateway_alone(account: Account) -> None:
    owner, user = account.owner, account.user
    mine, sns = gateway(owner)
    other, _ = gateway(owner)
    acl = owner.call("CreateACL", Name="theirs")["AclId"]
    account.policy({"Effect": "Allow", "Action": "smartag:*", "Resource": f"acs:smartag:*:*:smartag/{mine}"})
    user.call("ModifySmartAccessGateway", SmartAGId=mine, Name="renamed")
    assert user.call("DescribeSagPortList", SmartAGId=mine, SmartAGSn=sns[0])["Ports"]
    page = user.call("DescribeSmartAccessGateways")
    assert (page["TotalCount"], page["SmartAccessGateways"]["SmartAccessGateway"][0]["SmartAGId"]) == (1, mine)
    # One that exists and one that does not are the same.
    for sag in (other, "sag-nobody"):
        account.refused("ModifySmartAccessGateway", SmartAGId=sag, Name="renamed", RegionId="cn-shanghai")
        account.refused("DeleteSmartAccessGateway", InstanceId=sag)
    account.refused("AssociateACL", SmartAGId=mine, AclId=acl, RegionId="cn-shanghai")
    account.refused("DescribeACLs", RegionId="cn-shanghai")
    account.refused("CreateACL", Name="more", RegionId="cn-shanghai")
    account.refused("GetSmartAccessGatewayUseLimit", RegionId="cn-shanghai")
    account.refused("DescribeRegions")


def test_documented_collections(account: Account) -> None:
    account.policy({"Effect": "Allow", "Action": "smartag:*", "Resource": "acs:smartag:cn-shanghai:*:ccn/*"})
    ccn = account.user.call("CreateCloudConnectNetwork", Name="mine")["CcnId"]
    assert account.user.call("GetCloudConnectNetworkUseLimit")["UsedAmount"] == 1
    account.refused("CreateCloudConnectNetwork", Name="theirs", RegionId="cn-hangzhou")
    account.refused("DescribeCloudConnectNetworks", RegionId="cn-hangzhou")
    account.user.call("DeleteCloudConnectNetwork", CcnId=ccn)


def test_conditions_and_opposites(account: Account) -> None:
    acl = account.owner.call("CreateACL", Name="conditional")["AclId"]
    condition = {"IpAddress": {"acs:SourceIp": "127.0.0.0/8"}}
    account.policy(dict(ALLOW_ALL, Condition=condition))
    account.user.call("ModifyACL", AclId=acl, Name="inside")
    account.policy(ALLOW_ALL, {"Effect": "Deny", "NotAction": "smartag:Describe*", "Resource": "*", "Condition": condition})
    assert account.user.call("DescribeACLs")["TotalCount"] == 1
    account.refused("ModifyACL", AclId=acl, Name="denied", RegionId="cn-shanghai")
    account.policy({"Effect": "Allow", "Action": "*", "NotResource": f"acs:smartag:*:*:acl/{acl}"})
    account.refused("ModifyACL", AclId=acl, Name="denied", RegionId="cn-shanghai")
    done = account.policy(dict(ALLOW_ALL, Condition={"Bool": {"acs:MFAPresent": "true"}}))
    assert "warning" in done.stderr and "acs:MFAPresent" in done.stderr
    account.refused("DescribeACLs", RegionId="cn-shanghai")
    done = account.policy(deny("*:*:gateway/sag-1"), wait=False)
    assert done.returncode != 0 and "smartag, smartaccessgateway" in done.stderr


def test_another_users_answer_is_not_repeated(account: Account) -> None:
    account.policy(ALLOW_ALL)
    params = dict(Name="twice", ClientToken="the-same-token")
    first = account.owner.call("CreateCloudConnectNetwork", **params)["CcnId"]
    second = account.user.call("CreateCloudConnectNetwork", **params)["CcnId"]
    assert first != second == account.user.call("CreateCloudConnectNetwork", **params)["CcnId"]


def test_refused_calls_are_audited_with_what_they_were_about(account: Account) -> None:
    sag, _ = gateway(account.owner)
    account.policy(ALLOW_ALL, deny(f"*:*:smartag/{sag}"))
    account.refused("DeleteSmartAccessGateway", InstanceId=sag)
    with pytest.raises(ApiError):
        account.user.call("AddSnatEntry", SmartAGId=sag, CidrBlock="10.0.0.0/24", SnatIp="192.0.2.1")
    out = subprocess.run([BIN, "audit", *account.server.db, "--account", account.account, "--limit", "2", "--json"],
                         check=True, capture_output=True, text=True).stdout
    for entry in map(json.loads, out.split("\n")[:-1]):
        assert entry["Code"] == "Forbidden" and entry["User"] == "limited"
        assert [r.split(":")[2:] for r in entry["Resources"]] == [["cn-shanghai", entry["Resources"][0].split(":")[3], f"smartag/{sag}"]]


def test_a_granted_network_is_a_resource_too(account: Account, server: Any) -> None:
    """The existence of another account's network does not show by the refusal."""
    theirs = V1(server.endpoint, access_key(server.db, name(f"grantee-{os.getpid()}")), Record())
    ccn = theirs.call("CreateCloudConnectNetwork", Name="theirs")["CcnId"]
    row = gateway(theirs)[0]
    uid = theirs.call("DescribeSmartAccessGateways", SmartAGId=row)["SmartAccessGateways"]["SmartAccessGateway"][0]["SmartAGUid"]
    sag, _ = gateway(account.owner)
    account.policy(ALLOW_ALL, deny(f"*:{uid}:ccn/{ccn}"))
    account.refused("GrantSagInstanceToCcn", SmartAGId=sag, CcnInstanceId=ccn, CcnUid=uid, RegionId="cn-shanghai")
    for network in (ccn, "ccn-nobody"):
        account.owner.refused("GrantSagInstanceToCcn", "CCN.InvalidId", SmartAGId=sag, CcnInstanceId=network, CcnUid=1)
    own = account.owner.call("CreateCloudConnectNetwork", Name="own")["CcnId"]
    for instance in (row, "sag-nobody"):
        account.owner.refused("BindSmartAccessGateway", "Forbidden", CcnId=own, SmartAGId=instance, SmartAGUid=uid)
