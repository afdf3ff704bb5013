"""A sag-cloud of its own for the tests, two accounts, and the table of operations at the end."""

import atexit
import os
import socket
import ssl
import subprocess
import time
import urllib.request

import pytest

sdk = pytest.importorskip("alibabacloud_smartag20180313", reason="the SDKs are not installed: use tests/sdk/run.sh")
pytest.importorskip("aliyunsdksmartag", reason="the SDKs are not installed: use tests/sdk/run.sh")

import catalogue
import clients

BIN = os.environ.get("SAG_CLOUD_BIN", "target/debug/sag-cloud")
RECORDS = {"acs3": clients.Record(), "v1": clients.Record()}


def database(tmp):
    """PostgreSQL if the environment names one with the key of its secrets, else SQLite."""
    url = os.environ.get("SAG_CLOUD_TEST_DB")
    if url:
        return ["--db", url, "--key-file", os.environ["SAG_CLOUD_TEST_KEY"]]
    return ["--db", f"sqlite://{tmp}/cloud.db"]


def access_key(db, name, user=None):
    command = [BIN, "access-key", "create", "--name", name, *db]
    if user:
        command += ["--user", user]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = dict(line.split(": ") for line in out.splitlines())
    return rows["AccessKeyId"], rows["AccessKeySecret"]


class Server:
    def __init__(self, tmp, *options, cafile=None):
        self.context = ssl.create_default_context(cafile=cafile) if cafile else None
        self.tmp, self.db = tmp, database(tmp)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.endpoint = f"127.0.0.1:{s.getsockname()[1]}"
        self.options = options
        self.start()

    def start(self):
        self.log = open(self.tmp / "log", "ab")
        self.process = subprocess.Popen(
            [BIN, "serve", "--listen", self.endpoint, *self.db, *self.options], stderr=self.log
        )
        # A test that fails before its own stop leaves nothing running.
        atexit.register(self.process.kill)
        for _ in range(200):
            assert self.process.poll() is None, (self.tmp / "log").read_text()
            try:
                scheme = "https" if self.context else "http"
                urllib.request.urlopen(f"{scheme}://{self.endpoint}/readyz", timeout=1, context=self.context)
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server does not become ready")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(30) == 0


def offer(db, *options):
    """What the operator offers to every account: `access-points add …`, `versions add …`."""
    return subprocess.run([BIN, *options, *db], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    s = Server(tmp_path_factory.mktemp("cloud"))
    for point, latitude, longitude in [("101", "31.23", "121.47"), ("102", "-33.87", "151.21")]:
        offer(s.db, "access-points", "add", "--id", point, "--address", f"192.0.2.{point}", "--latitude", latitude,
              "--longitude", longitude)
    for kind, code in [("device", "0.1.0"), ("device", "0.1.1"), ("dpi", "20201117_1_0-0.0.1")]:
        offer(s.db, "versions", "add", "--type", kind, "--code", code, "--name", f"{kind}-{code}")
    yield s
    s.stop()


@pytest.fixture(scope="session", params=["acs3", "v1"])
def api(request, server):
    """One SDK with an account of its own."""
    key = access_key(server.db, f"first-{request.param}-{os.getpid()}")
    kind = clients.Acs3 if request.param == "acs3" else clients.V1
    return kind(server.endpoint, key, RECORDS[request.param])


@pytest.fixture(scope="session")
def other(api, server):
    """A second account, with the same SDK."""
    key = access_key(server.db, f"second-{api.kind}-{os.getpid()}")
    return type(api)(server.endpoint, key, api.record)


@pytest.fixture(scope="session")
def agent(api, server):
    """The agents of the first account: their calls are signed with ACS3 in both runs."""
    return clients.Acs3(server.endpoint, api.key, clients.Record())


@pytest.fixture(scope="session")
def agent_of(server):
    return lambda api: clients.Acs3(server.endpoint, api.key, clients.Record())


def pytest_terminal_summary(terminalreporter):
    write = terminalreporter.write_line
    write("operation".ljust(44) + "".join(k.rjust(30) for k in RECORDS))
    total = dict.fromkeys(RECORDS, 0)
    for op in catalogue.OPERATIONS:
        row = op.ljust(44)
        for kind, r in RECORDS.items():
            called = r.answered[op] or op in r.refused
            words = ["called" if called else "-"]
            if r.answered[op] or op in NO_RADIO:
                words.append("answered")
                total[kind] += 1
            if op in r.checked:
                words.append("checked")
            if op in r.xml:
                words.append("xml")
            row += " ".join(words).rjust(30)
        write(row)
    for kind, r in RECORDS.items():
        codes = sum(len(v) for v in r.refused.values())
        write(f"{kind}: {total[kind]} of {len(catalogue.OPERATIONS)} operations, {codes} refusals")

    provoked, documented = error_codes()
    left = sorted(documented - provoked - OUT_OF_REACH)
    write(f"{len(documented & provoked)} of {len(documented)} documented codes provoked, {len(OUT_OF_REACH)} out of reach")
    if left:
        write("not provoked: " + ", ".join(left))


def error_codes():
    """Error codes that were answered, and those that the documents have."""
    provoked = {code for r in RECORDS.values() for codes in r.refused.values() for _, code in codes}
    return provoked, {e["code"] for o in catalogue.OPERATIONS.values() for e in o["errors"]}


# Codes that no client can provoke here; docs/cloud-api.md says why.
OUT_OF_REACH = {
    "FeatureNotSupportForActiveSmartAG", "FeatureNotSupportForStandBySmartAG", "SAG.SslConnectionSpecInvalid",
    "SAG.IpCountTooLittle", "TunnelIdNotEnough", "TunnelIdDistributeError", "UpdateError.CCN", "UpdateError.SMARTAG",
    "InnerServiceFailed", "CreateProjectFailed", "GetSmartAccessGatewayStateError",
    "GetSmartAccessGatewayVersionError", "PermissionError", "InternalError", "SAG.VbrNotBondCen",
    "VbrConflict.ChangeSubnet", "VbrConflict.CreateBackup", "CCN.SnatCidrInUse", "CCN.SnatCidrNoConfig",
    "SAG.InvalidSnatCidr", "SAG.InvalidSnatIp", "SAG.ConflictSnatIp", "SAG.CidrUsedByRoutableAddress",
    "HC.AutoGenerated", "ResourceInOperating", "Upgrading", "SizeLimitExceeded.ResourceId", "SmartAccessGatewayOffline",
    "ClientUser.IpEmpty", "IllegalParam.Status", "SAG.InvalidRoutingStrategy", "SAG.NoBandwidth",
    "LinkLevelBackupExists", "InvalidCidr", "MissingParam.NetflowServerPort", "MissingParam.NetflowVersion",
}

# A virtual device answers these with FeatureNotSupport, as documented for one without a radio.
NO_RADIO = {"ModifySagWifi", "DescribeSagWifi", "DescribeSagWan4G"}
