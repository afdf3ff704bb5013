#!/usr/bin/python3
"""Whether sag-cloud meets its targets: latency, reads on a core, memory of waiting agents.

A server of its own over SQLite with 1,000 gateways, each with an ACL of 100 rules and two devices that have
reported. Printed as a table of target, measured, verdict, and written to target/bench/cloud.json and cloud.md;
the exit code is 1 if a target is missed.

  latency   median of each describe call, one after the other on one connection
  reads     signed calls answered for each second of processor time that the server used
  polls     resident memory of the server while 1,000 agents wait for a change

usage: benches/cloud_bench.py [--gateways N] [--rules N] [--seconds N] [--data FOLDER] [--fill]
With --data the gateways stay in FOLDER for the next run: to compare two builds, or (--fill) to make them while the
machine is busy.
Needs Python only; the release binary, or SAG_CLOUD_BIN. No root.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import selectors
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "sdk"))

from wire import signed

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BIN = os.environ.get("SAG_CLOUD_BIN", str(TARGET / "release" / "sag-cloud"))
LATENCY_MS, READS, POLLS_MB = 5.0, 2000, 200
ORDER = dict(
    Period=1, AutoPay="false", ReceiverCountry="China", ReceiverState="Zhejiang", ReceiverCity="Hangzhou",
    ReceiverDistrict="Xihu", ReceiverTown="Zhuantang", ReceiverZip="310000", ReceiverMobile="18800000000",
    ReceiverName="Li", ReceiverEmail="li@example.com", BuyerMessage="none", ReceiverAddress="1",
    ChargeType="PREPAY", HardWareSpec="sag-vcpe", MaxBandWidth=50, HaType="warm_backup", Description="bench",
)
RULE = dict(
    DestCidr="10.0.0.0/8", SourceCidr="192.168.0.0/16", DestPortRange="-1/-1", SourcePortRange="-1/-1",
    Direction="in", IpProtocol="tcp", Policy="drop",
)


# What an agent reports of its device every few seconds.
REPORT = {
    "SoftwareVersion": "2.3.1", "MonitorVersion": "1.2.0", "StartupTime": 1_760_000_000_000, "VpnState": "Normal", "IpsecStatus": "up",
    "Capabilities": ["RemoteAccess"], "TrafficRate": 12_345_678.9, "DropRate": 0.1,
    "Ports": [{"PortName": str(n), "Role": "LAN", "Status": "Up", "Mac": f"02:00:00:00:00:0{n}", "RxPackets": n} for n in range(6)],
    "Wans": [{"PortName": "0", "IP": "198.51.100.2", "Mask": "255.255.255.0", "Gateway": "198.51.100.1", "TrafficState": "Up"}],
    "Routes": [
        {"DestinationCidr": f"10.{n}.0.0/16", "RouteProtocol": "STATIC", "Cost": "[1/0]", "PortName": "3", "NextHop": "192.0.2.130"}
        for n in range(20)
    ],
    "Drops": [{"Port": "0", "Reason": "acl", "Packets": n} for n in range(8)],
    "TopTalkers": [{"Address": f"192.0.2.{n}", "Bytes": 1_000_000 * n} for n in range(10)],
}


class Server:
    def __init__(self, folder: str) -> None:
        self.db = f"sqlite://{folder}/cloud.db"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.made = Path(folder) / "gateways.json"
        self.process = None
        if self.made.exists():
            self.key = json.loads(self.made.read_text())["key"]
            return
        out = subprocess.run(
            [BIN, "access-key", "create", "--name", "bench", "--db", self.db],
            check=True, capture_output=True, text=True,
        ).stdout
        rows = dict(line.split(": ") for line in out.splitlines())
        self.key = rows["AccessKeyId"], rows["AccessKeySecret"]

    def start(self) -> None:
        self.process = subprocess.Popen(
            [BIN, "serve", "--listen", f"127.0.0.1:{self.port}", "--db", self.db, "--rate-limit", "0"],
            env={**os.environ, "RUST_LOG": "warn"},
        )
        for _ in range(200):
            try:
                http.client.HTTPConnection("127.0.0.1", self.port, timeout=2).request("GET", "/readyz")
                return
            except OSError:
                time.sleep(0.05)
        sys.exit("the server does not become ready")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def client(self) -> Client:
        return Client(self)


class Client:
    """Signed calls of version 1.0 over one connection."""

    def __init__(self, server: Server) -> None:
        self.key = server.key
        self.conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def query(self, action: str, **params: Any) -> str:
        return "/?" + urllib.parse.urlencode(signed(self.key, "GET", action, **params))

    def send(self, query: Any) -> tuple[Any, Any]:
        try:
            self.conn.request("GET", query)
            answer = self.conn.getresponse()
        except http.client.RemoteDisconnected:
            # The server closes a connection that was idle for 15 s, as it is for a client that gets no processor.
            self.conn.close()
            self.conn.request("GET", query)
            answer = self.conn.getresponse()
        return answer.status, answer.read()

    def call(self, action: str, **params: Any) -> dict[str, Any]:
        status, body = self.send(self.query(action, **params))
        if status != 200:
            sys.exit(f"{action}: {status} {body.decode()}")
        return json.loads(body)


def fill(server: Server, folder: str, gateways: int, rules: int) -> list[tuple[str, str, str]]:
    """Gateways and ACLs by the API; the rules of the first ACL too, and from there copies of them."""
    if server.made.exists():
        return json.loads(server.made.read_text())["gateways"]
    server.start()
    client, out = server.client(), []
    for n in range(gateways):
        sag = client.call("CreateSmartAccessGateway", **ORDER, Name=f"gw-{n}")["SmartAGId"]
        client.call("ActivateSmartAccessGateway", SmartAGId=sag)
        acl = client.call("CreateACL", Name=f"acl-{n}")["AclId"]
        client.call("AssociateACL", SmartAGId=sag, AclId=acl)
        if n == 0:
            for i in range(rules):
                client.call("AddACLRule", AclId=acl, Priority=i % 100 + 1, **RULE)
        row = client.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)
        out.append((sag, row["Devices"]["Device"][0]["SerialNumber"], acl))
    server.stop()
    db = sqlite3.connect(f"{folder}/cloud.db")
    first = out[0][2]
    db.row_factory = sqlite3.Row
    rows = [dict(row) for row in db.execute("SELECT * FROM objects WHERE parent = ?", (first,))]
    assert len(rows) == rules, f"{len(rows)} rows of the first ACL, not {rules}"
    copies = []
    for _, _, acl in out[1:]:
        for row in rows:
            new = row["id"].split("-")[0] + "-" + uuid.uuid4().hex[:18]
            body = row["body"].replace(row["id"], new).replace(first, acl)
            copies.append({**row, "id": new, "parent": acl, "body": body})
    columns = list(rows[0])
    places = ", ".join(f":{name}" for name in columns)
    db.executemany(f"INSERT INTO objects ({', '.join(columns)}) VALUES ({places})", copies)
    db.commit()
    db.close()
    server.made.write_text(json.dumps({"key": server.key, "gateways": out}))
    return out


def bring_online(server: Server, folder: str, gateways: list[tuple[str, str, str]]) -> None:
    """Every device is online: one reports, and the others have reported the same."""
    sag, sn, _ = gateways[0]
    server.client().call("ReportSmartAGState", SmartAGId=sag, SmartAGSn=sn, State=json.dumps(REPORT))
    db = sqlite3.connect(f"{folder}/cloud.db", timeout=30)
    seen = int(time.time() * 1000) + 3_600_000
    # What a report sets beside the report itself is in columns, in builds that have them.
    own = {"sn", "uid", "sag", "slot", "revision", "applied", "failure", "changed", "seen", "body", "sealed_key"}
    reported = [row[1] for row in db.execute("PRAGMA table_info(devices)") if row[1] not in own]
    columns = ", ".join(reported)
    values = db.execute(f"SELECT {columns} FROM devices WHERE sn = ?", (sn,)).fetchone()
    places = ", ".join(f"{name} = ?" for name in reported)
    db.execute(f"UPDATE devices SET {places}, seen = ?", (*values, seen))
    db.commit()
    db.close()


def describe_calls(gateways: list[tuple[str, str, str]]) -> dict[str, Any]:
    sag, sn, acl = gateways[len(gateways) // 2]
    return {
        "DescribeSmartAccessGateways": dict(PageSize=50),
        "DescribeSmartAccessGatewayAttribute": dict(SmartAGId=sag),
        "DescribeACLs": dict(PageSize=50),
        "DescribeACLAttribute": dict(AclId=acl, PageSize=50),
        "DescribeSagPortList": dict(SmartAGId=sag, SmartAGSn=sn),
        "DescribeSagWanSnat": dict(SmartAGId=sag, SmartAGSn=sn),
        "DescribeRegions": {},
    }


def latency(server: Server, gateways: list[tuple[str, str, str]]) -> dict[str, Any]:
    client, out = server.client(), {}
    for action, params in describe_calls(gateways).items():
        times = []
        for _ in range(200):
            query = client.query(action, **params)
            start = time.perf_counter()
            status, body = client.send(query)
            times.append((time.perf_counter() - start) * 1000)
            assert status == 200, body
        out[action] = statistics.median(times)
    return out


def reads(server: Server, gateways: list[tuple[str, str, str]], seconds: float) -> dict[str, Any]:
    """Calls of each kind for a second of the server's processor time, from four clients at once."""
    out = {}
    kinds = {
        "one gateway": ("DescribeSmartAccessGatewayAttribute", lambda n: dict(SmartAGId=gateways[n][0])),
        "regions": ("DescribeRegions", lambda n: {}),
    }
    for name, (action, params) in kinds.items():
        over, counts = threading.Event(), [0] * 4

        def run(i: int) -> None:
            client, n = server.client(), i
            while not over.is_set():
                client.call(action, **params(n % len(gateways)))
                n += 1
                counts[i] += 1

        before = server.cpu()
        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        time.sleep(seconds)
        over.set()
        for t in threads:
            t.join()
        out[name] = sum(counts) / (server.cpu() - before)
    return out


def polls(server: Server, gateways: list[tuple[str, str, str]]) -> tuple[Any, Any]:
    """Resident memory with every agent waiting for a change that does not come."""
    client = server.client()
    before, selector, socks = server.resident_mb(), selectors.DefaultSelector(), []
    pull = lambda sag, sn: client.call("PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn, Revision=0)["Revision"]
    revisions = [pull(sag, sn) for sag, sn, _ in gateways]
    for (sag, sn, _), revision in zip(gateways, revisions):
        query = client.query("PullSmartAGConfig", SmartAGId=sag, SmartAGSn=sn, Revision=revision, Wait=45)
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(f"GET {query} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        selector.register(s, selectors.EVENT_READ)
        socks.append(s)
    time.sleep(1)
    answered = len(selector.select(0))
    metrics = client.send("/metrics")[1].decode().splitlines()
    waiting = [line.split()[1] for line in metrics if line.startswith("sag_cloud_long_polls")]
    after = server.resident_mb()
    assert waiting == [str(len(gateways))], f"{waiting} polls wait; a busy machine is too slow to begin all within 45 s"
    for s in socks:
        s.close()
    assert answered == 0, f"{answered} polls were answered at once"
    return before, after


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gateways", type=int, default=1000)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement of reads")
    parser.add_argument("--data", metavar="FOLDER", help="where the gateways are stored for the next run")
    parser.add_argument("--fill", action="store_true", help="make the gateways only")
    args = parser.parse_args()
    if not os.access(BIN, os.X_OK):
        sys.exit(f"{BIN} is not built (cargo build --release -p sag-cloud), or set SAG_CLOUD_BIN")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    with tempfile.TemporaryDirectory(prefix="cloud-bench-") as temporary:
        folder = args.data or temporary
        os.makedirs(folder, exist_ok=True)
        server = Server(folder)
        try:
            start = time.monotonic()
            gateways = fill(server, folder, args.gateways, args.rules)
            print(f"{len(gateways)} gateways with {args.rules} rules each, made in {time.monotonic() - start:.0f} s")
            if args.fill:
                return 0
            server.start()
            bring_online(server, folder, gateways)
            rows = [
                (f"{action}, median", f"< {LATENCY_MS:.0f} ms", f"{ms:.2f} ms", ms < LATENCY_MS)
                for action, ms in latency(server, gateways).items()
            ]
            rows += [
                (f"signed reads a processor second, {name}", f"> {READS}", f"{n:.0f}", n > READS)
                for name, n in reads(server, gateways, args.seconds).items()
            ]
            before, after = polls(server, gateways)
            what = f"memory with {len(gateways)} waiting agents (before: {before:.0f} MB)"
            rows.append((what, f"< {POLLS_MB} MB", f"{after:.0f} MB", after < POLLS_MB))
        finally:
            server.stop()
    width = max(len(r[0]) for r in rows)
    print(f"{'what':{width}}  {'target':>9}  {'measured':>9}  verdict")
    for what, target, measured, good in rows:
        print(f"{what:{width}}  {target:>9}  {measured:>9}  {'ok' if good else 'MISSED'}")
    report = TARGET / "bench" / "cloud.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    keys = ("what", "target", "measured", "good")
    report.write_text(json.dumps([dict(zip(keys, r)) for r in rows], indent=1) + "\n")
    table = "".join(f"| {w} | {t} | {m} | {'ok' if good else 'missed'} |\n" for w, t, m, good in rows)
    report.with_suffix(".md").write_text(f"| what | target | measured | verdict |\n|---|---|---|---|\n{table}")
    return 0 if all(r[3] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
