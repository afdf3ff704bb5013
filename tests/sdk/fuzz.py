#!/usr/bin/env python3
"""A fuzz run against a server of its own, for as long as given: arbitrary parameters on every operation, and
bytes that are hardly HTTP. Fails on a status of 500 that is
not a documented refusal, an InternalError, an answer that is not as documented, a panic in the
log, or a server that is gone. Needs Python only.

usage: tests/sdk/fuzz.py [--seconds 60] [--seed N]      SAG_CLOUD_BIN names the binary
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

import arbitrary
import catalogue
from wire import signed

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINS = [TARGET / profile / "sag-cloud" for profile in ("release", "debug")]
BIN = os.environ.get("SAG_CLOUD_BIN") or next((str(b) for b in BINS if b.exists()), str(BINS[0]))
# Codes of refusals that the documents give a status of the 500s.
FAILURES = {
    name: [e["code"] for e in o["errors"] if e["http"] >= 500 and e["code"] != "InternalError"]
    for name, o in catalogue.OPERATIONS.items()
}
# Calls of these would end the run or its identifiers.
KEEP = {"DeleteSmartAccessGateway", "DeleteACL", "DeleteQos"}


class Run:
    def __init__(self, folder: Path | str, seed: int) -> None:
        self.rng, self.folder = random.Random(seed), folder
        self.db = f"sqlite://{folder}/cloud.db"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        made = [BIN, "access-key", "create", "--name", "fuzz", "--db", self.db]
        out = subprocess.run(made, check=True, capture_output=True, text=True).stdout
        self.key = tuple(line.split(": ")[1] for line in out.splitlines())
        self.log = open(f"{folder}/log", "wb")
        command = [BIN, "serve", "--listen", f"127.0.0.1:{self.port}", "--db", self.db, "--rate-limit", "0"]
        self.process = subprocess.Popen(command, stderr=self.log)
        self.conn = None
        self.statuses, self.bad, self.known = collections.Counter(), [], {}

    def send(self, method: str, target: str, body: Any = None) -> tuple[Any, str]:
        """Status and text; the connection stays."""
        for attempt in range(200):
            try:
                if self.conn is None:
                    self.conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                headers = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
                self.conn.request(method, target, body, headers)
                answer = self.conn.getresponse()
                return answer.status, answer.read().decode()
            except (ConnectionError, http.client.HTTPException):
                self.conn = None
                if self.process.poll() is not None or attempt == 199:
                    raise
                time.sleep(0.05)
        raise AssertionError("unreachable")

    def call(self, action: str, form: bool = False, **params: Any) -> Any:
        method = "POST" if form else "GET"
        query = urllib.parse.urlencode(signed(self.key, method, action, **params))
        return self.send(method, "/", query) if form else self.send(method, "/?" + query)

    def begin(self) -> None:
        """Things that arbitrary calls can be about."""
        receiver = {f"Receiver{k}": "x" for k in ("Country", "State", "City", "District", "Town", "Address")}
        order = dict(
            receiver, Period=1, AutoPay="false", ChargeType="PREPAY", HardWareSpec="sag-vcpe", MaxBandWidth=50,
            HaType="warm_backup", Name="fuzz", Description="fuzz", BuyerMessage="none", ReceiverName="Li",
            ReceiverZip="310000", ReceiverMobile="18800000000", ReceiverEmail="li@example.com",
        )
        sag = self.made("CreateSmartAccessGateway", "SmartAGId", **order)
        self.call("ActivateSmartAccessGateway", SmartAGId=sag)
        row = json.loads(self.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)[1])
        sns = [d["SerialNumber"] for d in row["Devices"]["Device"]]
        acl, qos = self.made("CreateACL", "AclId", Name="fuzz"), self.made("CreateQos", "QosId", QosName="fuzz")
        self.known.update(
            SmartAGId=[sag], SagId=[sag], SmartAGSn=sns, SerialNumber=sns, SnNumber=sns, RegionId=["cn-shanghai"],
            AclId=[acl], QosId=[qos], PortName=["0", "1", "2", "3"],
        )

    def made(self, action: str, field: str, **params: Any) -> str:
        status, text = self.call(action, **params)
        assert status == 200, f"{action}: {text}"
        return json.loads(text)[field]

    def learn(self, answer: Any) -> None:
        """Identifiers in answers are used in calls to come, the latest few of each."""
        for name, found in answer.items():
            if isinstance(found, str) and name.endswith("Id") and name != "RequestId" and found:
                self.known.setdefault(name, []).append(found)
                del self.known[name][1:-8]

    def operation(self) -> None:
        op = self.rng.choice(list(catalogue.OPERATIONS))
        params = arbitrary.params(catalogue.OPERATIONS[op], self.rng, self.known)
        if op in KEEP:
            params = {k: v for k, v in params.items() if all(v not in seen for seen in self.known.values())}
        xml = self.rng.random() < 0.1
        if xml:
            params["Format"] = "XML"
        status, text = self.call(op, form=self.rng.random() < 0.3, **params)
        documented = any(code in text for code in FAILURES.get(op, ()))
        self.statuses["documented 500" if status >= 500 and documented else status] += 1
        if (status >= 500 and not documented) or "InternalError" in text:
            self.bad.append((op, params, status, text[:300]))
        elif status == 200 and not xml:
            answer = json.loads(text)
            found = catalogue.problems(op, answer)
            if found:
                self.bad.append((op, params, found))
            self.learn(answer)

    def nonsense(self) -> None:
        if self.rng.random() < 0.5:
            query = arbitrary.query(self.rng)
            status, text = self.send("GET", "/?" + urllib.parse.quote(query, safe="%&=+;"))
            if status >= 500:
                self.bad.append(("query", query, status, text[:300]))
            self.statuses[status] += 1
            return
        data = arbitrary.request(self.rng)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            s.settimeout(0.2)
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                answer = s.recv(200)
            except OSError:
                answer = b""
        # 0: no answer, the connection was closed.
        status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0
        self.statuses[status] += 1
        if status >= 500:
            self.bad.append(("bytes", data[:200], answer))

    def end(self) -> None:
        gone = self.process.poll()
        if gone is None:
            self.process.terminate()
            gone = self.process.wait(30)
        if gone != 0:
            self.bad.append(("the server", "ended with", gone))
        self.log.close()
        lines = Path(self.log.name).read_bytes().splitlines()
        self.bad += [("panic", line.decode(errors="replace")) for line in lines if b"panicked" in line]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}, {args.seconds:.0f} s, {BIN}", flush=True)
    with tempfile.TemporaryDirectory(prefix="cloud-fuzz-") as folder:
        run = Run(folder, seed)
        try:
            run.begin()
            end, calls = time.monotonic() + args.seconds, 0
            while time.monotonic() < end and run.process.poll() is None:
                run.nonsense() if run.rng.random() < 0.1 else run.operation()
                calls += 1
        finally:
            run.end()
    counts = ", ".join(f"{s}: {n}" for s, n in sorted(run.statuses.items(), key=str))
    print(f"{calls} requests; by status {counts}")
    for one in run.bad[:10]:
        print("BAD", *one)
    print(f"verdict: {'ok' if not run.bad else f'{len(run.bad)} bad answers'}")
    return 1 if run.bad else 0


if __name__ == "__main__":
    sys.exit(main())
