"""Arbitrary parameters on every operation: refused or answered, never an internal error."""

import json
import os
import random
import sqlite3

import pytest

import arbitrary
import catalogue
from clients import V1, Record
from conftest import Server, access_key
from helpers import gateway, software
from wire import send, signed


@pytest.mark.parametrize("seed", range(2))
def test_no_internal_errors(tmp_path, seed):
    rng = random.Random(seed)
    server = Server(tmp_path, "--rate-limit", "0")
    key = access_key(server.db, f"fuzz-{seed}-{os.getpid()}")
    client = V1(server.endpoint, key, Record())
    sag, sns = gateway(client)
    acl = client.call("CreateACL", Name="fuzz")["AclId"]
    qos = client.call("CreateQos", QosName="fuzz")["QosId"]
    known = dict(
        SmartAGId=[sag, software(client)], SagId=[sag], SmartAGSn=sns, SerialNumber=sns, SnNumber=sns,
        RegionId=["cn-shanghai"], AclId=[acl], QosId=[qos], PortName=["0", "1", "2", "3"],
    )
    bad = []
    for op, o in catalogue.OPERATIONS.items():
        for _ in range(6):
            params = arbitrary.params(o, rng, known)
            status, text = send(server, signed(key, "GET", op, **params))
            if status == 200:
                found = catalogue.problems(op, json.loads(text))
                if found:
                    bad.append((op, params, found))
            elif json.loads(text)["Code"] == "InternalError":
                bad.append((op, params, text))
    assert server.process.poll() is None
    server.stop()
    log = (tmp_path / "log").read_text()
    assert "panicked" not in log
    assert not bad, "\n".join(map(str, bad[:5]))


def test_a_refused_call_changes_nothing(tmp_path):
    """Nor does one with DryRun: what is stored is the same after it as before, to the last byte."""
    rng = random.Random(7)
    server = Server(tmp_path, "--rate-limit", "0")
    if not server.db[1].startswith("sqlite://"):
        server.stop()
        pytest.skip("what is stored is looked at in SQLite")
    key = access_key(server.db, "unchanged")
    client = V1(server.endpoint, key, Record())
    sag, sns = gateway(client)
    acl = client.call("CreateACL", Name="fuzz")["AclId"]
    qos = client.call("CreateQos", QosName="fuzz")["QosId"]
    ccn = client.call("CreateCloudConnectNetwork", Name="fuzz", CidrBlock="192.168.0.0/16", IsDefault=True)["CcnId"]
    known = dict(
        SmartAGId=[sag, software(client)], SagId=[sag], SmartAGSn=sns, SerialNumber=sns, SnNumber=sns, CcnId=[ccn],
        RegionId=["cn-shanghai"], AclId=[acl], QosId=[qos], PortName=["0", "1", "2", "3"],
    )
    db = sqlite3.connect(f"file:{tmp_path}/cloud.db?mode=ro", uri=True)

    def stored():
        tables = ("objects", "links", "devices", "accounts", "access_keys", "policies", "client_tokens")
        return [db.execute(f"SELECT * FROM {t} ORDER BY 1, 2, 3").fetchall() for t in tables]

    before, refused = stored(), 0
    for op, o in catalogue.OPERATIONS.items():
        if op.startswith(("Describe", "Discribe", "List", "Get")):
            continue
        for n in range(4):
            params = arbitrary.params(o, rng, known)
            params["ClientToken"] = f"{op}-{n}"
            if n == 0:
                params["DryRun"] = "true"
            status, text = send(server, signed(key, "GET", op, **params))
            after = stored()
            assert status == 200 or after == before, (op, params, text)
            assert status != 200 or n > 0, f"{op} was carried out with DryRun"
            refused += status != 200
            before = after
    server.stop()
    assert refused > 200
