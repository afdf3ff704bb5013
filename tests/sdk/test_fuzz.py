"""Arbitrary parameters on every operation: refused or answered, never an internal error."""

import json
import os
import random

import catalogue
import pytest
from conftest import Server, access_key
from helpers import gateway, software
from clients import V1, Record
from wire import send, signed

WORDS = [
    "", "0", "-1", "1", "99999999999999999999", "true", "null", "[]", "{}", "a", "中文", "'; DROP TABLE objects; --",
    "10.0.0.0/8", "0.0.0.0/0", "::1", "1/65535", "-1/-1", "65536/1", "%00", "\x00", "\u2028", "𝔘" * 40, "x" * 5000,
    "2019-07-14T16:41:33+0800", "0000-00-00T00:00:00Z", "201913", "1e9", "..", "$1", "😀",
]
REAL = {}


def value(param, rng):
    kind = rng.random()
    if kind < 0.35 and "enum" in param:
        return rng.choice(param["enum"])
    if kind < 0.5 and REAL.get(param["name"]):
        return rng.choice(REAL[param["name"]])
    if kind < 0.65 and "example" in param:
        return param["example"]
    if kind < 0.8:
        return str(rng.randint(-5, 70_000))
    return rng.choice(WORDS)


@pytest.mark.parametrize("seed", range(2))
def test_no_internal_errors(tmp_path, seed):
    rng = random.Random(seed)
    server = Server(tmp_path, "--rate-limit", "0")
    key = access_key(server.db, f"fuzz-{seed}-{os.getpid()}")
    client = V1(server.endpoint, key, Record())
    sag, sns = gateway(client)
    acl = client.call("CreateACL", Name="fuzz")["AclId"]
    qos = client.call("CreateQos", QosName="fuzz")["QosId"]
    REAL.update(
        SmartAGId=[sag, software(client)], SagId=[sag], SmartAGSn=sns, SerialNumber=sns, SnNumber=sns,
        RegionId=["cn-shanghai"], AclId=[acl], QosId=[qos], PortName=["0", "1", "2", "3"],
    )
    bad = []
    for op, o in catalogue.OPERATIONS.items():
        for _ in range(6):
            params = {}
            for p in o["request"]:
                # Known identifiers mostly, so that the handlers are reached.
                if p["name"] in REAL and rng.random() < 0.9:
                    params[p["name"]] = rng.choice(REAL[p["name"]])
                elif rng.random() < (0.95 if p.get("required") else 0.4):
                    name = f"{p['name']}.{rng.choice([0, 1, 2, 999999999999])}" if p.get("list") else p["name"]
                    params[name] = value(p, rng)
            params.setdefault("RegionId", "cn-shanghai")
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
