"""A cloud API, the official SDK and an agent for the gateway of a lab.

The cloud lives in the namespace "inet" at 203.0.113.10; SDK calls come from there too. The agent lives in the
gateway's namespace and reaches the cloud by the gateway's WAN.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .config import ROOT
from .lab import Addresses as A
from .net import CommandError, run
from .waiting import within

if TYPE_CHECKING:
    from .lab import Lab
    from .net import Namespace

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
ENDPOINT = f"{A.INET[4]}:8180"
# The API's port names in the lab: WAN, first LAN, leased line, second LAN.
PORTS = {"0": "wan", "1": "lan-a", "3": "express", "4": "lan-b"}
ORDER = dict(
    Period=1, AutoPay=False, ReceiverCountry="China", ReceiverState="Zhejiang", ReceiverCity="Hangzhou",
    ReceiverDistrict="Xihu", ReceiverTown="Zhuantang", ReceiverZip="310000", ReceiverMobile="18800000000",
    ReceiverName="Li", ReceiverEmail="li@example.com", BuyerMessage="none", ReceiverAddress="1", ChargeType="PREPAY",
    HardWareSpec="sag-vcpe", HaType="warm_backup", MaxBandWidth=1000, Name="branch", Description="lab",
)


class Missing(Exception):
    """Something that these tests need is not there; the text says how to get it."""


def binary(name: str, variable: str) -> str:
    """From the environment, else the newest that is built."""
    given = os.environ.get(variable)
    if given:
        return given
    built = [p for p in (TARGET / "release" / name, TARGET / "debug" / name) if p.exists()]
    if not built:
        raise Missing(f"{name} is not built (cargo build -p {name}), or set {variable}")
    return str(built[0])


def crash_agent() -> tuple[None, list[Any]] | tuple[str, list[str]]:
    """An agent with crash points, and their names; skips without one."""
    for path in (os.environ.get("SAG_AGENT_CRASH_BIN"), os.environ.get("SAG_AGENT_BIN"), TARGET / "debug" / "sag-agent"):
        if path and Path(path).exists():
            steps = run([path, "crash-points"]).stdout.split()
            if steps:
                return str(path), steps
    return None, []


def sdk_python() -> str:
    venv = Path(os.environ.get("SAG_SDK_VENV", TARGET / "sdk-venv"))
    python = venv / "bin" / "python"
    have = "import alibabacloud_smartag20180313, aliyunsdksmartag"
    if not python.exists() or subprocess.run([python, "-c", have], capture_output=True).returncode:
        raise Missing("the SDK is not installed (scripts/setup.sh installs it)")
    return str(python)


@contextlib.contextmanager
def cloud_of(lab: Lab, folder: Path, endpoint: str = ENDPOINT) -> Iterator[Cloud]:
    """A cloud that is not started yet; stopped at the end. The test is skipped where it cannot be had."""
    try:
        it = Cloud(lab, folder, endpoint)
    except Missing as missing:
        pytest.skip(str(missing))
    try:
        yield it
    finally:
        it.stop()


# Seconds from the answer of a call to its effect.
SOON = 1.0


class SdkError(AssertionError):
    def __init__(self, op: str, answer: dict[str, Any]) -> None:
        super().__init__(f"{op}: {answer['message']}")
        self.code = answer["code"]


class Cloud:
    """sag-cloud with an access key, and the SDK in front of it."""

    def __init__(self, lab: Lab, folder: Path, endpoint: str = ENDPOINT) -> None:
        self.lab, self.folder, self.endpoint = lab, Path(folder), endpoint
        self.bin = binary("sag-cloud", "SAG_CLOUD_BIN")
        self.python = sdk_python()
        self.db = self.folder / "cloud.db"
        self.process = self.shell = None
        out = run([self.bin, "access-key", "create", "--name", "lab", "--db", self.url]).stdout
        self.key_file = self.folder / "key"
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(out)
        self.key = [line.split(": ")[1] for line in out.splitlines()]

    @property
    def url(self) -> str:
        return f"sqlite://{self.db}"

    def certificate(self) -> list[Path]:
        """A self-signed one of the endpoint's address: (certificate, key)."""
        made = [self.folder / "tls.pem", self.folder / "tls.key"]
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
             "-subj", "/CN=cloud", "-addext", f"subjectAltName=IP:{A.INET[4]}", "-addext", "basicConstraints=critical,CA:FALSE",
             "-out", made[0], "-keyout", made[1]])
        return made

    def start(self, tls: Sequence[Path] | None = None) -> None:
        log = open(self.folder / "cloud.log", "ab")
        command = [self.bin, "serve", "--listen", self.endpoint, "--db", self.url]
        if tls:
            command += ["--tls-cert", tls[0], "--tls-key", tls[1]]
        self.process = self.lab.inet.popen(command, stdout=log, stderr=log)
        scheme = "https" if tls else "http"
        probe = ["curl", "-sk", "-o", "/dev/null", "--max-time", "1", f"{scheme}://{self.endpoint}/readyz"]
        end = time.monotonic() + 20
        while self.lab.inet.run(probe, check=False).returncode:
            if time.monotonic() > end or self.process.poll() is not None:
                raise CommandError((self.folder / "cloud.log").read_text())
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = None

    def backup(self, to: Path) -> None:
        """A copy of the database, taken while the cloud runs."""
        with contextlib.closing(sqlite3.connect(self.db)) as live, contextlib.closing(sqlite3.connect(to)) as copy:
            live.backup(copy)

    def restore(self, copy: Path) -> None:
        """The database as it was; the cloud must not run."""
        for old in self.folder.glob("cloud.db-*"):
            old.unlink()
        shutil.copy(copy, self.db)

    def stop(self) -> None:
        for child in (self.shell, self.process):
            if child is not None:
                child.terminate()
                # sag-cloud gives running requests 20 s.
                child.wait(25)
        self.process = self.shell = None

    def account(self, name: str) -> Cloud:
        """The same cloud in the name of another account. Its SDK is to be ended by `hang_up`."""
        it = copy.copy(self)
        it.shell = it.process = None
        out = run([self.bin, "access-key", "create", "--name", name, "--db", self.url]).stdout
        it.key = [line.split(": ")[1] for line in out.splitlines()]
        return it

    def hang_up(self) -> None:
        if self.shell is not None:
            self.shell.terminate()
            self.shell.wait(25)
        self.shell = None

    def extension(self, op: str, **params: Any) -> Any:
        """An operation that the vendor's API does not have."""
        return self.call(op, extension=True, **params)

    def call(self, op: str, extension: bool = False, **params: Any) -> Any:
        if self.shell is None:
            command = [self.python, str(Path(__file__).with_name("sdk_shell.py")), self.endpoint, *self.key]
            self.shell = self.lab.inet.popen(
                command, stdin=subprocess.PIPE, stderr=open(self.folder / "sdk.log", "ab"), env={**os.environ, "NO_PROXY": "*"}
            )
            if not self.shell.stdout.readline():
                raise CommandError((self.folder / "sdk.log").read_text())
        self.shell.stdin.write(json.dumps({"op": op, "params": params, "extension": extension}) + "\n")
        self.shell.stdin.flush()
        line = self.shell.stdout.readline()
        if not line:
            raise CommandError((self.folder / "sdk.log").read_text())
        answer = json.loads(line)
        if "ok" not in answer:
            raise SdkError(op, answer)
        return answer["ok"]

    def gateway(self) -> tuple[Any, Any]:
        """An active instance with the lab's port roles: (gateway, serial number of its first device)."""
        sag = self.call("CreateSmartAccessGateway", **ORDER)["SmartAGId"]
        self.call("ActivateSmartAccessGateway", SmartAGId=sag)
        row = self.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
        sn = row["Devices"]["Device"][0]["SerialNumber"]
        self.call("ModifySagPortRole", SmartAGId=sag, SmartAGSn=sn, PortName="4", Role="LAN")
        return sag, sn


class Agent:
    """sag-agent in the gateway's namespace."""

    def __init__(self, lab: Lab, cloud: Cloud, sag: str, sn: str, ports: dict[str, Any] | None = None, **keys: Any) -> None:
        self.lab, self.cloud = lab, cloud
        self.bin = binary("sag-agent", "SAG_AGENT_BIN")
        self.folder = cloud.folder / sn
        self.folder.mkdir()
        self.ports = ports or PORTS
        self.conf = self.folder / "agent.toml"
        self.log = self.folder / "agent.log"
        self.process = None
        # Further sections of its file, as they stand there.
        self.sections = ""
        self.keys = {
            "endpoint": f"http://{cloud.endpoint}", "region_id": "cn-shanghai", "smart_ag_id": sag, "smart_ag_sn": sn,
            "access_key_file": str(cloud.key_file), "vcpe_socket": lab.socket, "state_dir": str(self.folder / "agent"),
            "poll_interval": 0.5, "report_interval": 1, "retry_max": 2, "dhcp_client": "off",
            "vcpe_config": str(self.folder / "vcpe.toml"), **keys,
        }

    def start(self, crash_at: str | None = None, bin_path: str | None = None, **keys: Any) -> Agent:
        text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in {**self.keys, **keys}.items())
        ports = "".join(f'"{name}" = {{ device = "{dev}" }}\n' for name, dev in self.ports.items())
        self.conf.write_text(f"{text}\n[ports]\n{ports}\n{self.sections}")
        env = {**os.environ, **({"SAG_AGENT_CRASH_AT": crash_at} if crash_at else {})}
        log = open(self.log, "ab")
        self.process = self.lab.gw.popen(
            [bin_path or self.bin, "run", "--config", self.conf], stdout=log, stderr=log, env=env
        )
        return self

    def wait(self, timeout: float = 10) -> Any:
        """How it ended."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)
        self.process = None

    def in_force(self) -> str:
        """The file that the gateway's next start shall begin with."""
        return (self.folder / "vcpe.toml").read_text()

    def status(self) -> Any:
        """What `sag-agent status` prints."""
        return json.loads(self.lab.gw.out([self.bin, "status", "--json", "--config", self.conf]))

    def rss_kb(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def tail(self, lines: str = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def api_names(config: dict[str, Any]) -> str:
    """The lab's file with the API's port names."""
    for device, name in (("lan-a", "1"), ("wan", "0"), ("express", "3"), ("lan-b", "4")):
        old = next(n for n in "0123" if f'name = "{n}"\ndevice = "{device}"' in config)
        config = config.replace(f'name = "{old}"\ndevice = "{device}"', f'name = "#{name}"\ndevice = "{device}"')
    return config.replace('"#', '"')


class Branch:
    def __init__(self, lab: Lab, cloud: Cloud, agent: Agent, sag: str, sn: str) -> None:
        self.lab, self.cloud, self.agent, self.sag, self.sn = lab, cloud, agent, sag, sn

    def call(self, op: str, **params: Any) -> Any:
        return self.cloud.call(op, **params)

    def mine(self, op: str, **params: Any) -> Any:
        """A call about the gateway."""
        return self.call(op, SmartAGId=self.sag, **params)

    def device(self, op: str, **params: Any) -> Any:
        return self.mine(op, SmartAGSn=self.sn, **params)

    def in_force(self) -> bool:
        try:
            return self.device("DescribeSAGDeviceInfo")["SynStatus"] == "Synchronized"
        except SdkError:
            return False

    def snat(self, word: str) -> None:
        self.device("ModifySagWanSnat", Snat=word)

    def source(self) -> Any:
        """The source address that the Internet's HTTP server sees for lan1."""
        return whoami(self.lab.lan1, A.INET[4])

    def links(self) -> dict[tuple[Any, Any], Any]:
        """Metered links, as the gateway has them."""
        output = self.lab.gw.out([self.lab.sagctl, "--socket", self.lab.socket, "--json", "qos"])
        return {(link["link"], link["direction"]): link["limit_bps"] for link in json.loads(output)["links"]}

    def document(self) -> Any:
        """The running document."""
        return self.lab.gw.out([self.lab.sagctl, "--socket", self.lab.socket, "config", "show"])

    def soon(self, what: str, check: Callable[[], Any], seconds: float = SOON) -> Any:
        took = within(seconds, what, check, self.agent.tail)
        print(f"{what}: {took * 1000:.0f} ms after the answer")
        return took


def reaches(ns: Namespace, url: str, seconds: float = 0.15) -> bool:
    return ns.run(["curl", "-s", "-o", "/dev/null", "--max-time", seconds, url], check=False).returncode == 0


def whoami(ns: Namespace, host: str, source: str | None = None) -> str:
    command = ["curl", "-s", "--max-time", 0.3, f"http://{host}:8000/whoami"]
    output = ns.run(command + (["--interface", source] if source else []), check=False).stdout.split()
    return output[0] if output else None


def pings(ns: Namespace, dest: str) -> bool:
    return ns.run(["ping", "-n", "-q", "-c", 1, "-W", 0.15, dest], check=False).returncode == 0
