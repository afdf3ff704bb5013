"""What the SDKs do not do by themselves: XML, bad signatures, replays, policies, limits, kills."""

import base64
import hashlib
import hmac
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import xml.etree.ElementTree as ET

import pytest
from clients import V1, ApiError, Record
from conftest import BIN, Server, access_key
from helpers import gateway


@pytest.fixture(scope="module")
def key(server):
    return access_key(server.db, f"protocol-{os.getpid()}")


def quote(s):
    return urllib.parse.quote(str(s), safe="~")


def signed(key, method, action, **params):
    """A request of version 1.0, ready to send."""
    params = {
        "Action": action, "Version": "2018-03-13", "AccessKeyId": key[0], "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0", "SignatureNonce": str(uuid.uuid4()), "RegionId": "cn-shanghai",
        "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **params,
    }
    params = {k: v for k, v in params.items() if v is not None}
    query = "&".join(f"{quote(k)}={quote(params[k])}" for k in sorted(params))
    text = f"{method}&%2F&{quote(query)}"
    digest = hmac.new(f"{key[1]}&".encode(), text.encode(), hashlib.sha1).digest()
    return {**params, "Signature": base64.b64encode(digest).decode()}


def send(server, params, method="GET", body=False):
    query = urllib.parse.urlencode(params)
    url = f"http://{server.endpoint}/"
    data = None
    if body:
        data = query.encode()
    else:
        url += "?" + query
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def test_get_post_and_form(server, key):
    for method, body in [("GET", False), ("POST", False), ("POST", True)]:
        status, text = send(server, signed(key, method, "DescribeRegions"), method, body)
        assert status == 200, text
        assert json.loads(text)["Regions"]["Region"]


def refusal(server, params, **how):
    status, text = send(server, params, **how)
    error = json.loads(text)
    assert {"RequestId", "HostId", "Code", "Message"} <= set(error)
    return status, error["Code"]


def test_refusals(server, key):
    good = signed(key, "GET", "DescribeRegions")
    assert send(server, good)[0] == 200
    assert refusal(server, good) == (400, "SignatureNonceUsed")
    for change, expected in [
        (dict(Signature="AAAA"), (400, "SignatureDoesNotMatch")),
        (dict(AccessKeyId="nobody"), (404, "InvalidAccessKeyId.NotFound")),
        (dict(AcceptLanguage="ja"), (400, "SignatureDoesNotMatch")),
    ]:
        assert refusal(server, {**signed(key, "GET", "DescribeRegions"), **change}) == expected
    for change, expected in [
        (dict(Timestamp="2020-01-01T00:00:00Z"), (400, "InvalidTimeStamp.Expired")),
        (dict(Timestamp="today"), (400, "InvalidTimeStamp.Format")),
        (dict(Timestamp=None), (400, "MissingTimestamp")),
        (dict(SignatureNonce=None), (400, "MissingSignatureNonce")),
        (dict(AccessKeyId=None), (400, "MissingAccessKeyId")),
        (dict(Version="2016-04-28"), (400, "InvalidVersion")),
        (dict(Action="Nonsense"), (404, "InvalidAction.NotFound")),
        (dict(Action=None), (400, "MissingAction")),
        (dict(SignatureMethod="HMAC-MD5"), (400, "InvalidParameter.SignatureMethod")),
        (dict(Format="YAML"), (400, "InvalidParameter.Format")),
        (dict(RegionId="moon", Action="DescribeSmartAccessGateways"), (400, "InvalidRegionID")),
    ]:
        params = {"Action": "DescribeRegions", **change}
        action = params.pop("Action")
        assert refusal(server, signed(key, "GET", action, **params)) == expected, change
    # The method is part of what is signed.
    assert refusal(server, signed(key, "GET", "DescribeRegions"), method="POST") == (400, "SignatureDoesNotMatch")


def test_xml(server, key):
    status, text = send(server, signed(key, "GET", "DescribeRegions", Format="XML"))
    root = ET.fromstring(text)
    assert status == 200 and root.tag == "DescribeRegionsResponse"
    assert len(root.findall("Regions/Region")) > 1 and root.find("RequestId").text
    status, text = send(server, signed(key, "GET", "Nonsense", Format="XML"))
    assert status == 404 and ET.fromstring(text).find("Code").text == "InvalidAction.NotFound"


def test_body_limit_and_paths(server, key):
    assert send(server, {"A": "x" * 2_000_000}, "POST", body=True)[0] == 413
    base = f"http://{server.endpoint}"
    assert urllib.request.urlopen(f"{base}/healthz").read() == b"ok\n"
    assert b"sag_cloud_requests_total" in urllib.request.urlopen(f"{base}/metrics").read()


def test_policies(server, tmp_path):
    account = f"policies-{os.getpid()}"
    owner = V1(server.endpoint, access_key(server.db, account), Record())
    user = V1(server.endpoint, access_key(server.db, account, "reader"), Record())
    acl = owner.call("CreateACL", Name="secret")["AclId"]
    open_acl = owner.call("CreateACL", Name="open")["AclId"]
    user.refused("DescribeACLs", "Forbidden")
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"Version": "1", "Statement": [
        {"Effect": "Allow", "Action": ["smartag:Describe*", "smartag:ModifyACL"], "Resource": "*"},
        {"Effect": "Deny", "Action": "*", "Resource": f"acs:smartag:*:*:acl/{acl}"},
    ]}))
    subprocess.run([BIN, "policy", "--account", account, "--user", "reader", "--name", "p", "--file", policy,
                    *server.db], check=True)
    assert user.call("DescribeACLs")["TotalCount"] == 2
    user.call("ModifyACL", AclId=open_acl, Name="renamed")
    user.refused("ModifyACL", "Forbidden", AclId=acl, Name="renamed")
    user.refused("CreateACL", "Forbidden", Name="more")
    user.refused("BindVbr", "Forbbiden.SubUser", SmartAGId="sag-x", VbrId="vbr-x", VbrRegionId="cn-shanghai")


def test_accounts_are_apart(api, other):
    sag, _ = gateway(api)
    other.refused("DescribeSmartAccessGatewayAttribute", "SAG.InstanceNoFound", SmartAGId=sag)
    acl = other.call("CreateACL", Name="theirs")["AclId"]
    api.refused("AssociateACL", "InvalidId.ACL", AclId=acl, SmartAGId=sag)


def test_a_disabled_key_is_refused(server):
    key = access_key(server.db, f"disabled-{os.getpid()}")
    subprocess.run([BIN, "access-key", "disable", "--id", key[0], *server.db], check=True)
    assert refusal(server, signed(key, "GET", "DescribeRegions")) == (403, "InvalidAccessKeyId.Inactive")


def test_rate_limit(tmp_path):
    s = Server(tmp_path, "--rate-limit", "5")
    try:
        key = access_key(s.db, f"limit-{os.getpid()}")
        codes = [send(s, signed(key, "GET", "DescribeRegions"))[0] for _ in range(20)]
        assert codes[:5] == [200] * 5 and 429 in codes
    finally:
        s.stop()


def test_a_kill_loses_nothing_acknowledged(tmp_path):
    s = Server(tmp_path)
    key = access_key(s.db, f"kill-{os.getpid()}")
    replay = signed(key, "POST", "CreateACL", Name="replayed")
    assert send(s, replay, "POST")[0] == 200
    made = []
    for round in range(3):
        client = V1(s.endpoint, key, Record())
        for i in range(15):
            made.append(client.call("CreateACL", Name=f"kill-{round}-{i}")["AclId"])
        s.kill()
        s.start()
    client = V1(s.endpoint, key, Record())
    kept = []
    for page in range(1, 3):
        answer = client.call("DescribeACLs", PageSize=50, PageNumber=page)
        kept += [a["AclId"] for a in answer["Acls"]["Acl"]]
    assert set(made) <= set(kept) and len(kept) == len(made) + 1
    # A replay of a change is refused by the new process too.
    assert refusal(s, replay, method="POST") == (400, "SignatureNonceUsed")
    s.stop()


def test_secrets_are_not_in_the_database_or_the_log(tmp_path):
    s = Server(tmp_path)
    key = access_key(s.db, f"secret-{os.getpid()}")
    client = V1(s.endpoint, key, Record())
    sag, sns = gateway(client)
    client.call("ModifySagPortRole", SmartAGId=sag, SmartAGSn=sns[0], PortName="0", Role="WAN")
    client.call("ModifySagWan", SmartAGId=sag, SmartAGSn=sns[0], PortName="0", IPType="PPPOE",
                Username="username1", Password="hunter2hunter2")
    s.stop()
    for path in tmp_path.iterdir():
        if path.name.endswith("key"):
            assert path.stat().st_mode & 0o077 == 0
            continue
        data = path.read_bytes()
        for secret in (key[1], "hunter2hunter2"):
            assert secret.encode() not in data, path


def test_wrong_secret(server):
    key = access_key(server.db, f"wrong-{os.getpid()}")
    with pytest.raises(ApiError) as e:
        V1(server.endpoint, (key[0], "wrong"), Record()).call("DescribeRegions")
    # The SDK sees that its own string to sign is right, and names the secret.
    assert e.value.code == "InvalidAccessKeySecret"
