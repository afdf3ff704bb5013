"""Arbitrary parameters on every operation: refused or answered, never an internal error."""

import json
import os
import random

import arbitrary
import catalogue
import pytest
from conftest import Server, access_key
from helpers import gateway, software
from clients import V1, Record
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
