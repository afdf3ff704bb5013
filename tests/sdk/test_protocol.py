"""What the SDKs do not do by themselves: XML, bad signatures, replays, policies, limits, kills."""

import http.client
import json
import os
import re
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ET

import pytest
from alibabacloud_smartag20180313 import models
from alibabacloud_smartag20180313.client import Client
from alibabacloud_tea_openapi import utils_models
from aliyunsdkcore.client import AcsClient
from aliyunsdksmartag.request.v20180313.DescribeRegionsRequest import DescribeRegionsRequest

import catalogue
from clients import V1, ApiError, Record
from conftest import BIN, Server, access_key
from helpers import STATE, gateway, software
from wire import send, signed

# A server looks a key and its policies up again after a second.
KEY_SECONDS = 1.1


@pytest.fixture(scope="module")
def key(server):
    return access_key(server.db, f"protocol-{os.getpid()}")


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
    time.sleep(KEY_SECONDS)
    assert user.call("DescribeACLs")["TotalCount"] == 1
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
    """Within the time for which a server remembers a key that it has seen in use."""
    key = access_key(server.db, f"disabled-{os.getpid()}")
    for command, expected in [("disable", (403, "InvalidAccessKeyId.Inactive")), ("enable", None),
                              ("delete", (404, "InvalidAccessKeyId.NotFound"))]:
        if expected:
            assert send(server, signed(key, "GET", "DescribeRegions"))[0] == 200
        subprocess.run([BIN, "access-key", command, "--id", key[0], *server.db], check=True)
        time.sleep(KEY_SECONDS)
        if expected:
            assert refusal(server, signed(key, "GET", "DescribeRegions")) == expected


def statements(server):
    # The text of the metrics is made at most twenty times a second.
    time.sleep(0.06)
    text = urllib.request.urlopen(f"http://{server.endpoint}/metrics").read().decode()
    return int(re.search(r"^sag_cloud_statements_total (\d+)$", text, re.M)[1])


def test_a_read_takes_few_statements(tmp_path):
    """However many rows it shows; those of the key and of other things that happen now and then left out."""
    s = Server(tmp_path)
    try:
        key = access_key(s.db, f"statements-{os.getpid()}")
        client = V1(s.endpoint, key, Record())
        made = [gateway(client) for _ in range(4)]
        acls = [client.call("CreateACL", Name="few")["AclId"] for _ in made]
        for acl, (sag, _) in zip(acls, made):
            client.call("AssociateACL", SmartAGId=sag, AclId=acl)
        sag, sns = made[0]
        # Beginning and end included. A shared database stores the nonce, and begins at once.
        shared = not s.db[1].startswith("sqlite://")
        for action, params, most in [
            ("DescribeRegions", {}, 2 if shared else 0),
            ("DescribeSmartAccessGateways", dict(PageSize=50), 5),
            ("DescribeSmartAccessGatewayAttribute", dict(SmartAGId=sag), 5),
            ("DescribeACLs", dict(PageSize=50), 4),
            ("DescribeACLAttribute", dict(AclId=acls[0], PageSize=50), 4),
            ("DescribeSagPortList", dict(SmartAGId=sag, SmartAGSn=sns[0]), 4),
        ]:
            counts = []
            # On a busy machine a second may pass between two reads, and the key is looked up again.
            while len(counts) < 20 and min(counts, default=None) != most + shared:
                before = statements(s)
                status, text = send(s, signed(key, "GET", action, **params))
                assert status == 200, text
                counts.append(statements(s) - before)
            assert min(counts) == most + shared, (action, counts)
    finally:
        s.stop()


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

    def write():
        """Until the server dies."""
        try:
            while True:
                status, text = send(s, signed(key, "POST", "CreateACL", Name="kill"), "POST")
                assert status == 200
                made.append(json.loads(text)["AclId"])
        except OSError:
            pass

    for _round in range(3):
        before = len(made)
        writers = [threading.Thread(target=write) for _ in range(4)]
        for w in writers:
            w.start()
        time.sleep(0.3)
        while len(made) < before + 3:
            time.sleep(0.01)
        s.kill()
        for w in writers:
            w.join()
        s.start()
    listed, page = set(), 1
    while True:
        status, text = send(s, signed(key, "GET", "DescribeACLs", PageSize=50, PageNumber=page))
        rows = json.loads(text)["Acls"]["Acl"]
        if not rows:
            break
        listed |= {r["AclId"] for r in rows}
        page += 1
    assert made and set(made) <= listed
    # A replay of a change is refused by the new process too.
    assert refusal(s, replay, method="POST") == (400, "SignatureNonceUsed")
    s.stop()


def test_tls(tmp_path):
    """With a certificate that sag-cloud made; each SDK is told to trust its authority, as docs/clients.md says."""
    make = [BIN, "cert", "--name", "127.0.0.1", "--name", "localhost", "--out", tmp_path / "tls"]
    subprocess.run(make, check=True, capture_output=True)
    cert, private, ca = (tmp_path / "tls" / f for f in ("server.pem", "server-key.pem", "ca.pem"))
    assert private.stat().st_mode & 0o777 == 0o600
    again = subprocess.run(make, capture_output=True, text=True)
    assert again.returncode == 1 and "nothing is replaced" in again.stderr
    s = Server(tmp_path, "--tls-cert", str(cert), "--tls-key", str(private), cafile=ca)
    try:
        key = access_key(s.db, f"tls-{os.getpid()}")
        query = urllib.parse.urlencode(signed(key, "GET", "DescribeRegions"))
        context = ssl.create_default_context(cafile=ca)
        with urllib.request.urlopen(f"https://{s.endpoint}/?{query}", context=context) as r:
            assert r.status == 200
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"https://{s.endpoint}/healthz", timeout=5)
        config = utils_models.Config(access_key_id=key[0], access_key_secret=key[1], endpoint=s.endpoint,
                                     region_id="cn-shanghai", ca=str(ca))
        assert Client(config).describe_regions(models.DescribeRegionsRequest()).body.regions.region
        older = AcsClient(key[0], key[1], "cn-shanghai", auto_retry=False, verify=str(ca))
        request = DescribeRegionsRequest()
        request.set_endpoint(s.endpoint)
        request.set_protocol_type("https")
        assert json.loads(older.do_action_with_exception(request))["Regions"]["Region"]
        with pytest.raises((OSError, http.client.HTTPException)):
            urllib.request.urlopen(f"http://{s.endpoint}/healthz", timeout=5)
    finally:
        s.stop()


def test_a_stop_ends_long_polls_in_order(tmp_path):
    s = Server(tmp_path)
    key = access_key(s.db, f"stop-{os.getpid()}")
    sag, sns = gateway(V1(s.endpoint, key, Record()))
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    status, text = send(s, signed(key, "GET", "PullSmartAGConfig", **device))
    revision = json.loads(text)["Revision"]
    got = []
    query = signed(key, "GET", "PullSmartAGConfig", Revision=revision, Wait=8, **device)
    poll = threading.Thread(target=lambda: got.append(send(s, query)))
    poll.start()
    time.sleep(0.5)
    s.stop()
    poll.join(10)
    assert got[0][0] == 200 and json.loads(got[0][1])["Changed"] is False


def test_processes_share_a_database(tmp_path):
    if not os.environ.get("SAG_CLOUD_TEST_DB"):
        pytest.skip("several processes share a PostgreSQL only: use tests/sdk/with-postgres.sh")
    a = Server(tmp_path)
    b = Server(tmp_path)
    key = access_key(a.db, f"shared-{os.getpid()}")
    sag, sns = gateway(V1(a.endpoint, key, Record()))
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    revision = json.loads(send(b, signed(key, "GET", "PullSmartAGConfig", **device))[1])["Revision"]
    got = []
    query = signed(key, "GET", "PullSmartAGConfig", Revision=revision, Wait=20, **device)
    poll = threading.Thread(target=lambda: got.append((json.loads(send(b, query)[1]), time.monotonic())))
    poll.start()
    time.sleep(0.5)
    V1(a.endpoint, key, Record()).call("ModifySagWanSnat", Snat="ENABLE", **device)
    changed = time.monotonic()
    poll.join(20)
    assert got[0][0]["Changed"] and got[0][1] - changed < 0.9
    # A replay to the other process is refused, of a question too.
    for op in ["DescribeRegions", "CreateACL"]:
        once = signed(key, "GET", op, Name="shared")
        assert send(a, once)[0] == 200
        assert refusal(b, once) == (400, "SignatureNonceUsed")
    # Writers of both at once: every one is answered, none is lost.
    def write(server, made):
        for _ in range(10):
            status, text = send(server, signed(key, "GET", "AddSnatEntry", SmartAGId=sag, SnatIp="10.0.0.1",
                                               CidrBlock=f"192.168.{len(made)}.0/{24 if server is a else 25}"))
            made.append((status, text))
    results = [[], []]
    writers = [threading.Thread(target=write, args=x) for x in zip((a, b), results)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert [r[0] for made in results for r in made] == [200] * 20, results
    assert V1(b.endpoint, key, Record()).call("DescribeSnatEntries", SmartAGId=sag)["TotalCount"] == 20
    a.stop()
    b.stop()


def test_secrets_are_in_no_database_log_or_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("RUST_LOG", "debug")
    s = Server(tmp_path)
    key = access_key(s.db, f"secret-{os.getpid()}")
    client = V1(s.endpoint, key, Record())
    sag, sns = gateway(client)
    app = software(client)
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    assert send(s, signed(key, "GET", "ReportSmartAGState", State=json.dumps(STATE), **device))[0] == 200
    client.call("ModifySagPortRole", PortName="0", Role="WAN", **device)
    client.call("ModifySagWan", PortName="0", IPType="PPPOE", Username="username1", Password="hunter2hunter2", **device)
    client.call("ModifySagRouteProtocolOspf", AreaId=10, HelloTime=10, DeadTime=40, RouterId="1.1.1.1",
                AuthenticationType="MD5", Md5KeyId=1, Md5Key="ospf-md5-key-1", **device)
    client.call("ModifySAGAdminPassword", Password="S3cret_admin_pass", **device)
    client.call("CreateSmartAccessGatewayClientUser", SmartAGId=app, UserName="user1", UserMail="u@example.com",
                Bandwidth=2000, Password="userpassw0rd1")
    client.call("ResetSmartAccessGatewayClientUserPassword", SmartAGId=app, UserName="user1", Password="userpassw0rd2")
    # A refused change is audited too.
    with pytest.raises(ApiError):
        client.call("ModifySAGAdminPassword", SmartAGId=sag, SmartAGSn="nobody", Password="S3cret_refused_pass")
    secrets = [key[1], "hunter2hunter2", "ospf-md5-key-1", "S3cret_admin_pass", "userpassw0rd1", "userpassw0rd2",
               "S3cret_refused_pass"]
    # An agent gets the key of its device, and what is set on it, in clear: all of it must be right, so none is lost.
    config = send(s, signed(key, "GET", "PullSmartAGConfig", **device))[1]
    assert all(secret in config for secret in ("hunter2hunter2", "ospf-md5-key-1", "S3cret_admin_pass"))
    secrets.append(json.loads(config)["Config"]["SecretKey"])
    answered = 0
    for op in catalogue.OPERATIONS:
        if op.startswith(("Describe", "Discribe", "List", "Get")):
            for kind in ("JSON", "XML"):
                ids = dict(device, SerialNumber=sns[0], UserName="user1")
                if op in ("DescribeSmartAccessGatewayClientUsers", "DescribeClientUserDNS"):
                    ids = dict(SmartAGId=app, UserName="user1")
                status, text = send(s, signed(key, "GET", op, Format=kind, **ids))
                assert not [x for x in secrets if x in text], (op, text)
                answered += status == 200
    assert answered > 60
    audit = subprocess.run([BIN, "audit", *s.db, "--limit", "0"], check=True, capture_output=True, text=True).stdout
    assert "ModifySAGAdminPassword" in audit and "****" in audit
    assert not [x for x in secrets if x in audit]
    s.stop()
    for path in tmp_path.iterdir():
        if path.name.endswith("key"):
            assert path.stat().st_mode & 0o077 == 0
            continue
        data = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in data, path


def test_wrong_secret(server):
    key = access_key(server.db, f"wrong-{os.getpid()}")
    with pytest.raises(ApiError) as e:
        V1(server.endpoint, (key[0], "wrong"), Record()).call("DescribeRegions")
    # The SDK sees that its own string to sign is right, and names the secret.
    assert e.value.code == "InvalidAccessKeySecret"


def test_the_audit_log_is_printed(server, key):
    client = V1(server.endpoint, key, Record())
    client.call("CreateACL", Name="audited")
    with pytest.raises(ApiError):
        client.call("DeleteACL", AclId="acl-none")

    def audit(*options):
        out = subprocess.run([BIN, "audit", *server.db, *options], check=True, capture_output=True, text=True).stdout
        # Not splitlines(): values that others sent may hold U+2028 and its like.
        return out.split("\n")[:-1]

    mine = [e for e in map(json.loads, audit("--json", "--since", "1h", "--limit", "0")) if e["AccessKeyId"] == key[0]]
    assert [e["Action"] for e in mine][-2:] == ["CreateACL", "DeleteACL"]
    assert mine[-2]["Code"] == "OK" and mine[-1]["Code"] != "OK"
    assert mine[-2]["Params"]["Name"] == "audited" and mine[-2]["Source"] == "127.0.0.1"
    assert not [e for e in mine if e["Action"].startswith("Describe")], "reading calls are not audited"
    assert len(audit("--action", "CreateACL", "--limit", "1")) == 1
    assert all(" CreateACL " in line for line in audit("--action", "CreateACL"))
    assert audit("--since", "2099-01-01") == []
    wrong = subprocess.run([BIN, "audit", *server.db, "--since", "yesterday"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "is no time" in wrong.stderr


def test_logs_are_plain_where_there_is_no_terminal(tmp_path):
    """And audit makes no database of its own."""
    server = Server(tmp_path)
    send(server, {"Action": "DescribeRegions"})
    server.stop()
    log = (tmp_path / "log").read_bytes()
    assert b"serving" in log and b"\x1b" not in log
    missing = tmp_path / "none.db"
    r = subprocess.run([BIN, "audit", "--db", f"sqlite://{missing}"], capture_output=True, text=True)
    assert r.returncode == 1 and "no database" in r.stderr and not missing.exists()


def test_logs_are_json_lines_with_the_request_id(tmp_path):
    s = Server(tmp_path, "--log-json")
    key = access_key(s.db, f"json-{os.getpid()}")
    answered = [send(s, signed(key, "GET", action))[1] for action in ("DescribeRegions", "Nonsense")]
    s.stop()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    calls = {e["fields"]["request_id"]: e["fields"] for e in lines if e["fields"].get("message") == "call"}
    got = [calls[json.loads(text)["RequestId"]] for text in answered]
    assert [(c["action"], c["status"], c["code"]) for c in got] == [
        ("DescribeRegions", 200, "OK"), ("Nonsense", 404, "InvalidAction.NotFound")]
    assert all(c["millis"] > 0 and c["peer"].startswith("127.0.0.1:") for c in got)
