"""Gateway instances: life cycle, attributes, serial numbers, orders."""

import calendar
import json
import subprocess
from datetime import UTC, datetime

import pytest

import helpers
from clients import REGION
from conftest import BIN, offer
from helpers import ORDER, gateway, report, rows


def test_order_and_describe(api):
    sag, sns = gateway(api)
    assert sag.startswith("sag-") and len(sag) == 22
    assert len(sns) == 2
    api.refused("ActivateSmartAccessGateway", "SmartAccessGatewayActivateFailed", SmartAGId=sag)
    got = api.call("DescribeSmartAccessGateways", SmartAGId=sag)
    row = rows(got, "SmartAccessGateways", "SmartAccessGateway")[0]
    assert row["MaxBandwidth"] == "50 M" and row["Status"] == "Active"
    assert row["SerialNumber"] == ",".join(sns)
    created, end = (datetime.fromtimestamp(row[name] / 1000, UTC) for name in ("CreateTime", "EndTime"))
    year, month = divmod(created.year * 12 + created.month, 12)
    last = calendar.monthrange(year, month + 1)[1]
    assert end == created.replace(year=year, month=month + 1, day=min(created.day, last)), "a month of the calendar"
    limit = api.call("GetSmartAccessGatewayUseLimit")
    assert 0 < limit["UsedAmount"] <= limit["TotalAmount"]
    api.refused("DescribeSmartAccessGatewayAttribute", "SAG.InstanceNoFound", SmartAGId="sag-nobody")


def test_order_is_checked(api):
    for wrong in [
        dict(MaxBandWidth=1), dict(HaType="no_backup"), dict(Period=10), dict(ChargeType="POSTPAY"),
        dict(Name="1name"), dict(HardWareSpec="sag-1"),
    ]:
        order = dict(ORDER, HardWareSpec="sag-vcpe", MaxBandWidth=50, HaType="warm_backup")
        order.update(wrong)
        api.refused("CreateSmartAccessGateway", "InvalidParameter", 403, **order)
    api.refused("CreateSmartAccessGateway", "MissingParameter", 403, HardWareSpec="sag-vcpe")


def test_resize(api):
    sag, _ = gateway(api)
    common = dict(SmartAGId=sag, AutoPay=True)
    assert api.call("UpgradeSmartAccessGateway", BandWidthSpec=100, **common)["OrderId"]
    api.refused("UpgradeSmartAccessGateway", "InvalidParameter", 403, BandWidthSpec=60, **common)
    if api.kind == "v1":  # The newer SDK does not send these two.
        api.refused("UpgradeSmartAccessGateway", "SAG.InvalidUserCount", BandWidthSpec=200, UserCount=3, **common)
        api.refused("UpgradeSmartAccessGateway", "SAG.InvalidDataPlan", BandWidthSpec=200, DataPlan=3, **common)
    assert api.call("DowngradeSmartAccessGateway", BandWidthSpec=20, **common)["OrderId"]
    row = api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
    assert row["MaxBandwidth"] == "20M"


def test_modify(api):
    sag, _ = gateway(api)
    api.call("ModifySmartAccessGateway", SmartAGId=sag, Name="renamed", Description="new text",
             CidrBlock="172.16.0.1/24,192.168.7.0/24", SecurityLockThreshold=3)
    row = api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
    assert row["Name"] == "renamed" and row["CidrBlock"] == "172.16.0.1/24,192.168.7.0/24"
    for cidr, code in [
        ("172.16.0.0", "SAG.InvalidCidrFormat"),
        ("8.8.8.0/24", "SAG.InvalidCidr"),
        ("10.0.0.0/8,10.1.0.0/16", "SAG.CidrOverlap"),
        (",".join(f"10.{i}.0.0/16" for i in range(51)), "SAG.CidrAmountLimit"),
    ]:
        api.refused("ModifySmartAccessGateway", code, SmartAGId=sag, CidrBlock=cidr)
    api.refused("ModifySmartAccessGateway", "InvalidName", SmartAGId=sag, Name="x")
    api.call("ModifySmartAccessGateway", SmartAGId=sag, RoutingStrategy="dynamic")
    api.refused("ModifySmartAccessGateway", "SAG.NotAllowConfigCidr", SmartAGId=sag, CidrBlock="10.9.0.0/16")
    api.refused("ModifySmartAccessGateway", "SAG.InstanceNoFound", SmartAGId="sag-nobody", Name="abc")
    api.refused("ModifySmartAccessGateway", "InvalidId.SMARTAG", SmartAGId="nobody", Name="abc")
    row = api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
    assert row["RoutingStrategy"] == "dynamic" and row["CidrBlock"] == ""


def test_not_activated(api):
    sag, _ = gateway(api, activate=False)
    api.refused("AddSnatEntry", "SmartAccessGatewayNotActivated", SmartAGId=sag,
                CidrBlock="192.168.0.0/24", SnatIp="10.0.0.1")


def test_serial_numbers(api):
    sag, sns = gateway(api, "sag-1000", activate=False, AlreadyHaveSag=True)
    assert sns == []
    sn = helpers.name(f"sage-{api.kind}")
    api.call("BindSerialNumber", SmartAGId=sag, SerialNumber=sn)
    api.refused("BindSerialNumber", "SAG.SnConflict", SmartAGId=sag, SerialNumber=sn)
    api.refused("BindSerialNumber", "SAG.SnOverLimit", SmartAGId=sag, SerialNumber=sn + "b")
    api.refused("BindSerialNumber", "SAG.InstanceNoFound", SmartAGId="sag-nobody", SerialNumber=sn + "b")
    got = api.call("DescribeSmartAccessGateways", SerialNumber=sn)
    assert got["TotalCount"] == 1
    api.call("UnbindSerialNumber", SmartAGId=sag, SerialNumber=sn)
    assert api.call("DescribeSmartAccessGateways", SerialNumber=sn)["TotalCount"] == 0


def test_lists_filter_and_page(api):
    made = [gateway(api, "sag-100wm", Name="same-name")[0] for _ in range(3)]
    one = api.call("DescribeSmartAccessGateways", Name="same-name", PageSize=2, PageNumber=2)
    assert one["TotalCount"] == 3 and one["PageNumber"] == 2
    got = rows(one, "SmartAccessGateways", "SmartAccessGateway")
    assert [r["SmartAGId"] for r in got] == made[2:]
    two = api.call("DescribeSmartAccessGateways", SmartAGIds=made[:2])
    assert two["TotalCount"] == 2
    for filters in [dict(HardwareType="sag-1000"), dict(InstanceType="software"), dict(Status="Offline"),
                    dict(BusinessState="Arrearage"), dict(ResourceGroupId="rg-x"),
                    dict(SoftwareVersion="9.9", VersionComparator="greater")]:
        none = api.call("DescribeSmartAccessGateways", Name="same-name", **filters)
        assert none["TotalCount"] == 0, filters
    api.refused("DescribeSmartAccessGateways", "Param.InvalidVersionComparator", SoftwareVersion="1",
                VersionComparator="about")
    api.refused("DescribeSmartAccessGateways", "InvalidRegionID", RegionId="cn-nowhere")
    elsewhere = api.call("DescribeSmartAccessGateways", RegionId="cn-hangzhou", SmartAGId=made[0])
    assert elsewhere["TotalCount"] == 0


def test_small_ones(api, agent):
    sag, sns = gateway(api)
    api.call("UnlockSmartAccessGateway", SmartAGId=sag)
    api.refused("UnlockSmartAccessGateway", "InvalidId.SMARTAG", SmartAGId="sag-nobody")
    api.call("ModifySmartAccessGatewayUpBandwidth", SmartAGId=sag, UpBandwidthWan=7)
    api.refused("ModifySmartAccessGatewayUpBandwidth", "MissingParameter", SmartAGId=sag)
    api.call("ClearSagRouteableAddress", SagId=sag)
    api.call("ClearSagCipher", SagId=sag, SnNumber=sns[0])
    api.refused("RebootSmartAccessGateway", "SmartAccessGatewayNotOnline", 403, SmartAGId=sag)
    report(agent, sag, sns[0])
    got = api.call("RebootSmartAccessGateway", SmartAGId=sag, SerialNumber=sns[0])
    assert got["requestId"] == got["RequestId"]
    config = helpers.apply(agent, sag, sns[0])
    assert [c["Name"] for c in config["Commands"]] == ["Reboot"]
    assert helpers.apply(agent, sag, sns[0])["Commands"] == []
    api.call("MoveResourceGroup", ResourceId=sag, ResourceType="smartag", NewResourceGroupId="rg-new")
    assert api.call("DescribeSmartAccessGateways", ResourceGroupId="rg-new")["TotalCount"] == 1
    api.refused("MoveResourceGroup", "InvalidParameter", 403, ResourceId="acl-x", ResourceType="acl",
                NewResourceGroupId="rg-new")


def test_the_outcome_of_commands_is_printed(api, agent, server):
    """No documented operation shows it."""
    sag, sns = gateway(api)
    report(agent, sag, sns[0])

    def devices(*options):
        command = [BIN, "devices", *server.db, "--device", sns[0], *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    api.call("RebootSmartAccessGateway", SmartAGId=sag, SerialNumber=sns[0])
    waiting = json.loads(devices("--json"))
    assert waiting["SmartAGId"] == sag and waiting["Online"]
    assert [(c["Name"], c["State"]) for c in waiting["Commands"]] == [("Reboot", "Waiting")]
    revision, why = waiting["Revision"], "not while\nit rains"
    result = [{"Name": "Reboot", "Revision": revision, "Outcome": "Unsupported", "Message": why}]
    helpers.apply(agent, sag, sns[0], CommandResults=json.dumps(result))
    done = json.loads(devices("--json"))
    assert done["AppliedRevision"] == done["Revision"] == revision
    assert [(c["Name"], c["State"], c["Message"]) for c in done["Commands"]] == [("Reboot", "Unsupported", why)]
    first, second = devices().splitlines()
    assert first == f"{sns[0]}\t{sag}\tonline\trevision {revision} in force"
    assert second.startswith("\tReboot\t") and second.endswith("Unsupported: not while\\nit rains")
    nobody = subprocess.run([BIN, "devices", *server.db, "--device", "sn-none"], capture_output=True, text=True)
    assert nobody.returncode == 1 and "no device sn-none" in nobody.stderr


def test_regions(api):
    got = rows(api.call("DescribeRegions", AcceptLanguage="en-US"), "Regions", "Region")
    assert REGION in [r["RegionId"] for r in got]


def test_versions(api, agent, server):
    sag, sns = gateway(api)

    def offered_of(kind):
        answer = api.call("DescribeSmartAccessGatewayVersions", SmartAGId=sag, VersionType=kind)
        return [v["VersionCode"] for v in rows(answer, "SmartAGVersions", "SmartAGVersion")]

    # What the operator offers, until he retires it.
    offer(server.db, "versions", "add", "--code", "0.0.9", "--name", "old")
    assert offered_of("Device") == ["0.1.0", "0.1.1", "0.0.9"] and offered_of("Dpi") == ["20201117_1_0-0.0.1"]
    offer(server.db, "versions", "retire", "--code", "0.0.9")
    assert offered_of("Device") == ["0.1.0", "0.1.1"]
    assert "0.0.9\told" in offer(server.db, "versions", "list")
    offered = api.call("DescribeSmartAccessGatewayVersions", SmartAGId=sag)
    codes = [v["VersionCode"] for v in rows(offered, "SmartAGVersions", "SmartAGVersion")]
    common = dict(SmartAGId=sag, SerialNumber=sns[0])
    api.refused("UpdateSmartAccessGatewayVersion", "NotBoundCCN", VersionCode=codes[-1], **common)
    ccn = api.call("CreateCloudConnectNetwork", Name="versions")["CcnId"]
    api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.refused("UpdateSmartAccessGatewayVersion", "SmartAccessGatewayNotOnline", VersionCode=codes[-1], **common)
    report(agent, sag, sns[0])
    api.call("UpdateSmartAccessGatewayVersion", VersionCode=codes[-1], **common)
    report(agent, sag, sns[0], SoftwareVersion="99.0.0")
    api.refused("UpdateSmartAccessGatewayVersion", "VersionTooOld", VersionCode=codes[-1], **common)
    policy = dict(CronExpression="0 0 4 1/1 * ?", Duration=30, TimeZone="Asia/Shanghai", UpgradeType="scheduled")
    api.call("ModifyDeviceAutoUpgradePolicy", **policy, **common)
    got = api.call("DescribeDeviceAutoUpgradePolicy", **common)
    assert {k: got[k] for k in policy} == dict(policy, Duration="30")
    api.refused("ModifyDeviceAutoUpgradePolicy", "SAG.InvalidSerialNumber",
                **dict(policy, SmartAGId=sag, SerialNumber="nobody"))
    api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn)


@pytest.mark.parametrize("bound", [True, False])
def test_delete(api, bound):
    sag, _ = gateway(api)
    if bound:
        ccn = api.call("CreateCloudConnectNetwork", Name="delete")["CcnId"]
        api.call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
        api.refused("DeleteSmartAccessGateway", "AlreadyBound.CCN", 400, InstanceId=sag)
        api.call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=sag)
        api.call("DeleteCloudConnectNetwork", CcnId=ccn)
    api.call("DeleteSmartAccessGateway", InstanceId=sag)
    assert api.call("DescribeSmartAccessGateways", SmartAGId=sag)["TotalCount"] == 0
    api.refused("DeleteSmartAccessGateway", "MissingParameter")
