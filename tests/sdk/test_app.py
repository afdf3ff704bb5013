"""The client-app edition: accounts, online clients, enterprise codes."""

import json
import os
import random

from helpers import name, rows, software

MAIL = "li@example.com"


def app(api, cidr="10.20.0.0/24", region="cn-shanghai"):
    sag = software(api, RegionId=region)
    return dict(SmartAGId=sag, RegionId=region)


def with_block(api, cidr, region="cn-shanghai"):
    """An instance takes its block out of the block of its network."""
    sag = app(api, region=region)
    ccn = api.call("CreateCloudConnectNetwork", CidrBlock="10.0.0.0/8", RegionId=region)["CcnId"]
    api.call("BindSmartAccessGateway", CcnId=ccn, **sag)
    api.call("ModifySmartAccessGateway", CidrBlock=cidr, **sag)
    api.refused("ModifySmartAccessGateway", "SAG.InvalidCidr.NoBelongCcnCidr", CidrBlock="192.168.0.0/24", **sag)
    api.refused("ModifyCloudConnectNetwork", "CCN.CidrInUse", CcnId=ccn, CidrBlock="172.16.0.0/12", RegionId=region)
    api.call("UnbindSmartAccessGateway", CcnId=ccn, **sag)
    api.call("DeleteCloudConnectNetwork", CcnId=ccn, RegionId=region)
    return sag


def test_accounts(api):
    sag = with_block(api, "10.20.0.0/24")
    create = "CreateSmartAccessGatewayClientUser"
    good = dict(UserName="li", Password="passw0rd1", UserMail=MAIL, Bandwidth=1000)
    got = api.call(create, ClientIp="10.20.0.5", **good, **sag)
    assert got["UserName"] == "li" and got["Bandwidth"] == 1000
    for wrong, code in [
        ({}, "ClientUser.UserExist"),
        (dict(UserName="a b"), "ClientUser.NameInvalid"),
        (dict(UserMail="x"), "ClientUser.EmailInvalid"),
        (dict(UserMail=""), "ClientUser.EmailEmpty"),
        (dict(Bandwidth=20001), "ClientUser.BandwidthInvalid"),
        (dict(Password="x"), "ClientUser.PasswordInvalid"),
        (dict(UserName=""), "ClientUser.NameEmpty"),
        (dict(UserName="wang", ClientIp="10.20.0.5"), "ClientUser.InvalidClientIp"),
        (dict(UserName="wang", ClientIp="10.30.0.5"), "ClientUser.InvalidClientIp"),
        (dict(UserName="wang", ClientIp="x"), "ClientUser.IpInvalid"),
    ]:
        api.refused(create, code, **{**good, **wrong}, **sag)
    bare = app(api)
    api.refused(create, "SAG.CidrEmpty", ClientIp="10.20.0.6", **good, **bare)
    by_mail = api.call(create, UserMail="zhang@example.com", Bandwidth=1, **sag)
    assert by_mail["UserName"] == "zhang@example.com"
    for i in range(3):
        api.call(create, UserMail=f"u{i}@example.com", Bandwidth=1, **sag)
    api.refused(create, "ClientUser.UserOverLimit", UserMail="more@example.com", Bandwidth=1, **sag)
    listed = rows(api.call("DescribeSmartAccessGatewayClientUsers", UserName="li", **sag), "Users", "User")
    # 000:14969, 003:434: 0 is enabled, 1 disabled.
    assert listed[0]["State"] == 0 and "Password" not in str(listed)
    got = api.call("ModifySmartAccessGatewayClientUser", UserName="li", Bandwidth=5000, Email="l2@example.com", **sag)
    assert got["UserMail"] == "l2@example.com"
    api.refused("ModifySmartAccessGatewayClientUser", "ResourceNotFound.User", UserName="nobody", Bandwidth=1, **sag)
    api.call("ResetSmartAccessGatewayClientUserPassword", UserName="li", Password="an0therpass", **sag)
    api.call("DisableSmartAccessGatewayUser", UserName="li", **sag)
    listed = rows(api.call("DescribeSmartAccessGatewayClientUsers", UserMail="l2@example.com", **sag), "Users", "User")
    assert listed[0]["State"] == 1
    api.call("EnableSmartAccessGatewayUser", UserName="li", **sag)
    api.call("DeleteSmartAccessGatewayClientUser", UserName="li", **sag)
    api.refused("DeleteSmartAccessGatewayClientUser", "ClientUser.NameInvalid", UserName="li", **sag)


def test_plan(api):
    sag = app(api)
    plan = dict(AutoPay=True, DataPlan=5)
    assert api.call("UpgradeSmartAccessGatewaySoftware", UserCount=10, **plan, **sag)["OrderId"]
    assert api.call("DowngradeSmartAccessGatewaySoftware", UserCount=5, **plan, **sag)["OrderId"]
    api.refused("UpgradeSmartAccessGatewaySoftware", "SAG.InvalidUserCount", UserCount=7, **plan, **sag)
    api.refused("DowngradeSmartAccessGatewaySoftware", "SAG.InvalidDataPlan", UserCount=5, **dict(plan, DataPlan=4), **sag)


def test_online(api, agent):
    sag = app(api)
    api.call("CreateSmartAccessGatewayClientUser", UserName="li", Password="passw0rd1", UserMail=MAIL, Bandwidth=1, **sag)
    state = {
        "Clients": [{"UserName": "li", "ClientIp": "192.168.0.2", "OnlineTime": "1559125519"}],
        "Flow": {"201905": {"li": 555352}},
    }
    agent.extension("ReportSmartAGState", State=json.dumps(state), **sag)
    got = api.call("DescribeUserOnlineClientStatistics", UserNames=["li", "nobody"], **sag)
    assert [r["OnlineCount"] for r in rows(got, "UserStatistics", "Statistics")] == ["1", "0"]
    got = rows(api.call("DescribeUserOnlineClients", UserName="li", **sag), "Users", "User")
    assert got == [{"ClientIp": "192.168.0.2", "OnlineTime": "1559125519"}]
    got = api.call("DescribeSagOnlineClientStatistics", SmartAGIds=[sag["SmartAGId"]])
    assert rows(got, "SagStatistics", "Statistics") == [{"SmartAGId": sag["SmartAGId"], "OnlineCount": "1"}]
    got = api.call("DescribeUserFlowStatistics", UserNames=["li"], StatisticsDate="201905", **sag)
    assert rows(got, "SagStatistics", "Statistics") == [{"TotalBytes": "555352", "UserName": "li"}]
    api.call("KickOutClients", Username="li", **sag)
    got = api.call("DescribeUserOnlineClientStatistics", UserNames=["li"], **sag)
    assert rows(got, "UserStatistics", "Statistics")[0]["OnlineCount"] == "0"


def test_dns(api):
    sag = app(api)
    if api.kind == "acs3":
        api.call("ModifyClientUserDNS", AppDNS=["100.100.2.136", "100.100.2.138"], **sag)
        assert len(api.call("DescribeClientUserDNS", **sag)["AppDNS"]) == 2
        api.refused("ModifyClientUserDNS", "InvalidParam.Ip", AppDNS=["x"], **sag)
    else:
        api.call("ModifyClientUserDNS", **sag)
        assert api.call("DescribeClientUserDNS", **sag)["AppDNS"] == []


def test_roaming(api):
    here = with_block(api, "10.40.0.0/24")
    there = with_block(api, "10.41.0.0/24", "cn-hangzhou")
    api.call("CreateSmartAccessGatewayClientUser", UserName="li", Password="passw0rd1", UserMail=MAIL, Bandwidth=1, **here)
    roam = dict(OriginSmartAGId=here["SmartAGId"], OriginRegionId="cn-shanghai", RegionId="cn-hangzhou",
                TargetSmartAGId=there["SmartAGId"], UserName="li")
    api.call("RoamClientUser", **roam)
    assert api.call("DescribeSmartAccessGatewayClientUsers", **there)["TotalCount"] == 1
    api.refused("RoamClientUser", "ClientUser.UserExist", **roam)


def test_enterprise_codes(api):
    def code():
        return f"{random.choice('abcdef')}{os.urandom(2).hex()}"[:4] + "7"

    a, b = code(), code()
    api.call("CreateEnterpriseCode", EnterpriseCode=a)
    api.call("CreateEnterpriseCode", EnterpriseCode=b, ClientToken=name("token"))
    api.refused("CreateEnterpriseCode", "EnterpriseCode.BeenOccupied", EnterpriseCode=a)
    api.refused("CreateEnterpriseCode", "InvalidParameter", EnterpriseCode="abcde")
    api.call("UpdateEnterpriseCode", EnterpriseCode=a, IsDefault=True)
    # A hundred are an account's.
    letters = [random.choice("ghjkmnpqrstvwxyz") for _ in range(2)]
    more = [f"{letters[0]}{i:02}{letters[1]}7" for i in range(100 - api.call("ListEnterpriseCode")["TotalCount"])]
    for one in more:
        api.call("CreateEnterpriseCode", EnterpriseCode=one)
    api.refused("CreateEnterpriseCode", "QuotaExceeded.EnterpriseCode", 400, EnterpriseCode=code())
    for one in more:
        api.call("DeleteEnterpriseCode", EnterpriseCode=one)
    sag = app(api)
    api.call("UpdateSmartAGEnterpriseCode", EnterpriseCode=b, **sag)
    listed = api.call("ListEnterpriseCode", EnterpriseCode=b)["EnterpriseCodes"]
    assert listed == [{"EnterpriseCode": b, "IsDefault": False, "SmartAGCount": 1}]
    second = app(api)
    for s in (sag, second):
        api.call("CreateSmartAccessGatewayClientUser", UserName="li", Password="passw0rd1", UserMail=MAIL, Bandwidth=1, **s)
    api.refused("UpdateSmartAGEnterpriseCode", "EnterpriseCode.UserNameConflict", EnterpriseCode=b, **second)
    api.refused("DeleteEnterpriseCode", "EnterpriseCode.BeingUsed", EnterpriseCode=b)
    api.refused("DeleteEnterpriseCode", "EnterpriseCode.DeleteLimit", EnterpriseCode=a)
    api.call("UpdateEnterpriseCode", EnterpriseCode=a, IsDefault=False)
    api.call("DeleteEnterpriseCode", EnterpriseCode=a)
    api.refused("DeleteEnterpriseCode", "EnterpriseCode.NotExist", EnterpriseCode=a)
    api.refused("UpdateEnterpriseCode", "EnterpriseCode.NotExist", EnterpriseCode=a, IsDefault=True)
