"""Every operation does what `docs/coverage.md` says: each line is observed, in the order of `level_rows.py`."""

from __future__ import annotations

import collections
import json
import os
import sqlite3
import subprocess
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import catalogue
import helpers
from clients import Acs3, Driver, Node, Record
from conftest import BIN, access_key
from level_rows import PLAN, ROWS
from levels import ACTS, FEATURES, MEASURED, PAGE, REFUSED, STORED, WAITS, Row, kept, page

AGENT = os.environ.get("SAG_AGENT_BIN", str(Path(BIN).with_name("sag-agent")))


# Where the vendor's libraries for Node are; `run.sh` installs them.
MODULES = os.environ.get("SAG_SDK_NODE", "")


def client(kind: str, endpoint: str, key: tuple[str, str], python: Acs3) -> Driver:
    if kind == "acs3":
        return python
    if not Path(MODULES, "@alicloud").is_dir():
        pytest.skip("the vendor's libraries for Node are not installed: node or npm is missing, or the registry is away")
    return Node(kind, MODULES, endpoint, key, Record())


class World:
    """An account with a gateway whose device reports, and what the calls have kept."""

    def __init__(self, server: Any, kind: str) -> None:
        self.server = server
        key = access_key(server.db, f"coverage-{kind}-{os.getpid()}")
        # What agents call is in no SDK.
        self.agent = Acs3(server.endpoint, key, Record())
        self.api = client(kind, server.endpoint, key, self.agent)
        self.kept = types.SimpleNamespace()
        call, keep = self.api.call, self.kept
        keep.sag, (keep.sn, _) = helpers.gateway(self.api)
        keep.unused = helpers.gateway(self.api, activate=False)[0]
        keep.bare = helpers.gateway(self.api, "sag-1000", AlreadyHaveSag=True)[0]
        keep.second = helpers.gateway(self.api)[0]
        self.api.call("ModifySmartAccessGateway", SmartAGId=keep.second, CidrBlock="10.22.0.0/24")
        keep.new_sn = helpers.name("coverage")
        self.can = self.preview()["Capabilities"]
        other = Acs3(server.endpoint, access_key(server.db, f"coverage-{kind}-other-{os.getpid()}"), Record())
        keep.other_ccn = other.call("CreateCloudConnectNetwork", Name="other")["CcnId"]
        row = other.call("DescribeSmartAccessGateways", SmartAGId=helpers.gateway(other)[0])
        keep.other_uid = row["SmartAccessGateways"]["SmartAccessGateway"][0]["SmartAGUid"]
        keep.first_point, keep.point = 101, 102
        self.before_it_reports(call)
        self.apps(call)
        self.report()

    def before_it_reports(self, call: Any) -> None:
        """What a device that has not said what it can do takes."""
        keep = self.kept
        helpers.report(self.agent, keep.sag, keep.sn)
        forward = dict(SagInsId=keep.sag, SagSn=keep.sn, Domain="a.example", MasterIp="10.0.0.53")
        keep.forward = call("AddSmartAccessGatewayDnsForward", **forward)["Data"]["InstanceId"]
        keep.remote = "10.99.0.1"
        serial = dict(SmartAGId=keep.sag, SerialNumber=keep.sn)
        call("ModifySagRemoteAccess", RemoteAccessIp=keep.remote, **serial)
        call("ModifyDeviceAutoUpgradePolicy", CronExpression="0 0 4 1/1 * ?", Duration=30, TimeZone="Asia/Shanghai",
             UpgradeType="scheduled", **serial)
        call("UpdateSmartAGDpiAttribute", SmartAGId=keep.sag, DpiEnabled=True)
        call("EnableSmartAGDpiMonitor", SmartAGId=keep.sag, SlsLogStore="store", SlsProjectName="project")
        log = dict(OutputType="netflow", NetflowServerIp="192.168.0.2", NetflowServerPort=9995, NetflowVersion="V9")
        keep.log = call("CreateFlowLog", **log)["FlowLogId"]
        call("AssociateFlowLog", FlowLogId=keep.log, SmartAGId=keep.sag)
        configs = [dict(SmartAGId=keep.sag, Bandwidth=10)]
        call("AssociateSmartAGWithApplicationBandwidthPackage", AssociateConfigs=configs, **PLAN)

    def apps(self, call: Any) -> None:
        keep = self.kept
        keep.app, keep.second_app = helpers.software(self.api), helpers.software(self.api)
        ccn = call("CreateCloudConnectNetwork", CidrBlock="10.0.0.0/8")["CcnId"]
        for one, block in ((keep.app, "10.40.0.0/24"), (keep.second_app, "10.41.0.0/24")):
            call("BindSmartAccessGateway", CcnId=ccn, SmartAGId=one)
            call("ModifySmartAccessGateway", SmartAGId=one, CidrBlock=block)
            call("UnbindSmartAccessGateway", CcnId=ccn, SmartAGId=one)
        call("DeleteCloudConnectNetwork", CcnId=ccn)
        clients = {"Clients": [{"UserName": "li", "ClientIp": "192.168.0.2", "OnlineTime": "1559125519"}],
                   "Flow": {"201905": {"li": 555352}}}
        self.agent.extension("ReportSmartAGState", SmartAGId=keep.app, State=json.dumps(clients))
        keep.code, keep.second_code, keep.third_code = (f"{c}{os.urandom(2).hex()[:3]}7" for c in "ghj")
        for code in (keep.second_code, keep.third_code):
            call("CreateEnterpriseCode", EnterpriseCode=code)
        call("UpdateEnterpriseCode", EnterpriseCode=keep.second_code, IsDefault=True)

    def report(self, **more: Any) -> None:
        """The device says what sag-agent can do."""
        helpers.report(self.agent, self.kept.sag, self.kept.sn, **{"Capabilities": self.can, **kept(self.kept, more)})

    def document(self, **params: Any) -> Any:
        one = dict(SmartAGId=self.kept.sag, SmartAGSn=self.kept.sn, **params)
        config = self.agent.extension("PullSmartAGConfig", Revision=0, **one)["Config"]
        config["Revision"] = 0
        return config

    def preview(self, document: Any = None) -> Any:
        """What sag-agent does with the document of the device."""
        text = json.dumps(document or self.document())
        run = subprocess.run([AGENT, "preview", "-"], input=text, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    def answer(self, op: str, params: dict[str, Any]) -> Any:
        got = self.api.call(op, **params)
        return {k: v for k, v in got.items() if k != "RequestId"}

    def seen(self, row: Row) -> Any:
        if row.seen == "document":
            return self.document()
        if row.seen == "database":
            path = self.server.db[1].removeprefix("sqlite://")
            if path == self.server.db[1]:
                # No answer shows a password, and the rows of PostgreSQL are not read here.
                return None
            with sqlite3.connect(path, timeout=20) as db:
                return db.execute("SELECT body FROM objects WHERE kind = 'app_user' ORDER BY id").fetchall()
        return self.answer(row.seen, row.seen_params(self.kept))

    # Observations.

    def acts(self, row: Row, params: dict[str, Any]) -> None:
        before = self.preview()
        if row.op == "UnlockSmartAccessGateway":
            # As after a silence that is longer than a test.
            locked = self.document()
            locked["Gateway"]["Locked"] = True
            before = self.preview(locked)
        if row.op == "ProbeAccessPointNetworkQuality":
            # The call waits for what the device measures.
            device = helpers.answer_probe(self.agent, self.kept.sag, self.kept.sn)
            answer = self.api.call(row.op, **params)
            device.join()
            self.report()
        else:
            answer = self.api.call(row.op, **params)
        if row.op == "CreateSmartAccessGateway":
            new = answer["SmartAGId"]
            self.api.call("ActivateSmartAccessGateway", SmartAGId=new)
            device = self.api.call("DescribeSmartAccessGatewayAttribute", SmartAGId=new)["Devices"]["Device"][0]
            config = self.agent.extension("PullSmartAGConfig", SmartAGId=new, SmartAGSn=device["SerialNumber"], Revision=0)
            assert self.preview(config["Config"])["Desired"]["bandwidth"] == 50
        elif row.command:
            done = [c["Outcome"] for c in self.preview()["Commands"] if c["Name"] == row.command]
            assert done == ["Done"], done
        else:
            assert self.preview()["Desired"] != before["Desired"], "the agent does the same as before"
        self.keep(row, answer)

    def measured(self, row: Row, params: dict[str, Any]) -> None:
        self.report()
        before = self.answer(row.op, params)
        assert self.answer(row.op, params) == before
        self.report(**row.report)
        after = self.answer(row.op, params)
        self.report()
        assert after != before, "the answer does not follow the report"

    def stored(self, row: Row, params: dict[str, Any]) -> None:
        if row.shows:
            text = row.shows(self.kept)
            assert text in str(self.answer(row.op, params)), text
            return
        before, desired = (self.seen(row) if row.seen else None), self.preview()["Desired"]
        answer = self.api.call(row.op, **params)
        if before is not None:
            assert self.seen(row) != before, f"{row.seen} does not show it"
        assert self.preview()["Desired"] == desired, "the agent acts on it"
        self.keep(row, answer)

    def keep(self, row: Row, answer: Any) -> None:
        if row.keep:
            setattr(self.kept, row.keep[0], answer[row.keep[1]])

    def refused(self, row: Row, params: dict[str, Any]) -> None:
        before = self.document()
        self.api.refused(row.op, "FeatureNotSupport", **params)
        assert self.document() == before


@pytest.fixture(params=["acs3", "openapi", "pop"])
def world(request: pytest.FixtureRequest, server: Any) -> Iterator[World]:
    """By the Python SDK, and by the vendor's two libraries for Node, for which there is no generated package."""
    if not Path(AGENT).exists():
        pytest.skip(f"{AGENT} is not built")
    it = World(server, request.param)
    yield it
    if isinstance(it.api, Node):
        it.api.stop()


def test_every_operation_does_what_the_page_says(world: World) -> None:
    """One after the other: what one makes, the next ones use."""
    wrong = []
    observe = {ACTS: world.acts, MEASURED: world.measured, STORED: world.stored, WAITS: world.stored,
               REFUSED: world.refused}
    for row in ROWS:
        try:
            observe[row.level](row, row.params(world.kept))
        except Exception as e:
            wrong.append(f"{row.op} {row.part}: {row.level}: {type(e).__name__}: {e}"[:300])
    assert not wrong, "\n".join(wrong)


def test_the_page_has_every_operation_and_is_current() -> None:
    rows = collections.Counter((r.op, r.part) for r in ROWS)
    assert [r for r, n in rows.items() if n > 1] == []
    assert {r.op for r in ROWS} == set(catalogue.OPERATIONS)
    for row in ROWS:
        assert bool(row.feature) == (row.level in (WAITS, REFUSED)), row.op
        assert not row.feature or row.feature in FEATURES, row.feature
    assert PAGE.read_text() == page(ROWS), "python3 tests/sdk/levels.py"
