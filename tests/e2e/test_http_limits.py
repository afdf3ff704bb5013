"""Clients that take what the HTTP servers and the control socket have: the others are served all the same, memory stays
bounded, and everything is as before when they have gone."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

import pytest

from harness.cloud import Missing, binary
from harness.config import lab_config
from harness.net import Namespace, run
from harness.waiting import within

# The attacker, and somebody else; behind the same addresses the servers listen.
ATTACKER = {4: "127.0.0.1", 6: "2001:db8:bad::1"}
VICTIM = {4: "127.0.0.2", 6: "2001:db8:600d::1"}
SCRIPT = Path(__file__).parent / "harness" / "http_attack.py"
CONNECTIONS = 2000
# Seconds for which the others are watched.
DURING = 2
# Calls of theirs at least: one of so many may fail.
CALLS = 24
KINDS = ["idle", "head", "body", "unread", "churn"]


@pytest.fixture(scope="module")
def ns():
    """A namespace with two addresses of each family on its loopback device."""
    name = f"t{os.getpid()}-http-one"
    run(["ip", "netns", "add", name])
    it = Namespace(name, f"/run/netns/{name}")
    it.ip("link set lo up")
    add_addresses(it)
    yield it
    run(["ip", "netns", "delete", name])


def add_addresses(ns):
    for address in (ATTACKER[6], VICTIM[6]):
        ns.ip(f"addr add {address}/128 dev lo nodad", check=False)


def program(name, variable):
    try:
        return binary(name, variable)
    except Missing as missing:
        pytest.skip(str(missing))


@contextlib.contextmanager
def attack(ns, kind, family, port, count=CONNECTIONS):
    command = [sys.executable, SCRIPT, kind, ATTACKER[family], ATTACKER[family], port, count]
    attacker = ns.popen(command, stdin=subprocess.PIPE, stderr=None)
    try:
        # A server that lets nobody in any more keeps the attacker waiting too.
        ready = threading.Thread(target=attacker.stdout.readline)
        ready.start()
        ready.join(10)
        yield
        assert attacker.poll() is None, "the attacker has ended"
    finally:
        attacker.kill()
        attacker.wait()


class Status:
    """What the kernel says about a process."""

    def __init__(self, pid):
        self.pid = pid

    def kb(self, field):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Victim:
    """Somebody else: a connection and a call at a time."""

    def __init__(self, ns, family, call):
        self.ns, self.family, self.call = ns, family, call
        self.times = []

    def once(self):
        """Seconds of a call, or nothing if it failed."""
        start = time.monotonic()
        try:
            with self.ns.inside():
                self.call(self.family)
        except (OSError, http.client.HTTPException, AssertionError):
            return None
        return time.monotonic() - start

    def watch(self, seconds, calls=0):
        """At least so long, and so many calls if they do not take six times as long."""
        start = time.monotonic()
        self.times = []
        while (took := time.monotonic() - start) < seconds or (len(self.times) < calls and took < 6 * seconds):
            self.times.append(self.once())
            time.sleep(0.05)

    def served(self):
        """Share of calls within 3 s."""
        return sum(t is not None and t <= 3 for t in self.times) / len(self.times)

    def report(self, what):
        done = sorted(t for t in self.times if t is not None)
        median = f"median {done[len(done) // 2] * 1000:.0f} ms, longest {done[-1] * 1000:.0f} ms" if done else "none"
        print(f"{what}: {len(done)} of {len(self.times)} calls, {median}")


def request(family, path, port, method="GET", body=None, headers=None, tls=None):
    kind, more = (http.client.HTTPSConnection, {"context": tls}) if tls else (http.client.HTTPConnection, {})
    connection = kind(VICTIM[family], port, timeout=3, source_address=(VICTIM[family], 0), **more)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, f"{answer.status}: {text}"
        return text
    finally:
        connection.close()


def under_attack(ns, kind, family, port, call, status, memory_mb):
    """Watches somebody else before, during and after an attack."""
    victim = Victim(ns, family, call)
    assert victim.once() is not None
    before = status.kb("VmRSS")
    with attack(ns, kind, family, port):
        victim.watch(DURING, calls=CALLS)
        victim.report(f"{kind}, IPv{family}")
        most, descriptors = status.kb("VmRSS"), status.descriptors()
    print(f"memory {before // 1024} MB, under attack {most // 1024} MB; {descriptors} descriptors")
    assert victim.served() >= 0.95, f"{victim.served():.0%} of the calls of others were answered"
    assert most < memory_mb * 1024, f"{most // 1024} MB"
    # Within 5 s everything is as before.
    end = time.monotonic() + 4
    while True:
        victim.watch(0.7)
        undisturbed = victim.served() == 1 and max(victim.times) < 1
        if undisturbed or time.monotonic() > end:
            break
    victim.report("after")
    assert undisturbed, victim.times
    return descriptors


@pytest.fixture(scope="module")
def cloud(ns, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cloud")
    it = Cloud(ns, folder)
    yield it
    it.stop()


class Cloud:
    """sag-cloud for both families, with a key."""

    ports = itertools.count(8180)

    def __init__(self, ns, folder, nofile="1024:", tls=False):
        self.ns, self.folder, self.port, self.tls = ns, folder, next(Cloud.ports), None
        program_ = program("sag-cloud", "SAG_CLOUD_BIN")
        self.db = ["--db", f"sqlite://{folder}/cloud.db"]
        out = run([program_, "access-key", "create", "--name", "victim", *self.db]).stdout
        self.key = [line.split(": ")[1] for line in out.splitlines()]
        self.log = folder / "log"
        # As a process has them where nobody raised it.
        limit = ["prlimit", f"--nofile={nofile}"]
        command = [*limit, program_, "serve", "--listen", f"[::]:{self.port}", *self.db]
        if tls:
            command += self.certificate()
            self.tls = ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.process = ns.popen(command, stderr=open(self.log, "ab"))
        within(10, "ready", lambda: Victim(ns, 4, lambda f: request(f, "/readyz", self.port, tls=self.tls)).once() is not None, self.log.read_text)

    def certificate(self):
        cert, key = self.folder / "tls.pem", self.folder / "tls.key"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
             "-subj", "/CN=cloud", "-out", cert, "-keyout", key])
        return ["--tls-cert", cert, "--tls-key", key]

    def signed(self, family, action="DescribeRegions", **more):
        """A signed call of version 1.0."""
        quote = lambda text: urllib.parse.quote(str(text), safe="~")
        params = {
            "Action": action, "Version": "2018-03-13", "AccessKeyId": self.key[0], "SignatureMethod": "HMAC-SHA1",
            "SignatureVersion": "1.0", "SignatureNonce": str(uuid.uuid4()), "RegionId": "cn-shanghai",
            "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **more,
        }
        text = "&".join(f"{quote(k)}={quote(params[k])}" for k in sorted(params))
        digest = hmac.new(f"{self.key[1]}&".encode(), f"POST&%2F&{quote(text)}".encode(), hashlib.sha1).digest()
        params["Signature"] = base64.b64encode(digest).decode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return json.loads(request(family, "/", self.port, "POST", urllib.parse.urlencode(params), headers, self.tls))

    def metric(self, name):
        with self.ns.inside():
            text = request(4, "/metrics", self.port, tls=self.tls)
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.mark.parametrize("kind", KINDS)
def test_others_call_the_cloud(ns, cloud, kind, family):
    ended = cloud.metric("sag_cloud_connections_ended_total")
    descriptors = under_attack(ns, kind, family, cloud.port, cloud.signed, Status(cloud.process.pid), 250)
    # One source has no more than its share.
    assert descriptors < 1200
    assert cloud.metric("sag_cloud_connections_ended_total") > ended or kind == "churn"
    left = lambda: (cloud.metric("sag_cloud_connections "), cloud.metric("sag_cloud_buffered_bytes"))
    within(5, "connections and memory are given back", lambda: left()[0] <= 3 and left()[1] == 0, left)


@pytest.mark.parametrize("kind", ["resets", "streams"])
def test_others_call_the_cloud_beside_http2(ns, cloud, kind):
    """Calls on one connection count like connections, and who takes them back all the time has to go."""
    descriptors = under_attack(ns, kind, 4, cloud.port, cloud.signed, Status(cloud.process.pid), 250)
    assert descriptors < 1200
    left = lambda: (cloud.metric("sag_cloud_connections "), cloud.metric("sag_cloud_buffered_bytes"))
    within(5, "connections and memory are given back", lambda: left()[0] <= 3 and left()[1] == 0, left)


@pytest.mark.parametrize("kind", ["idle", "head"])
def test_others_call_the_cloud_by_tls(ns, tmp_path, kind):
    """Handshakes that do not begin, and what is none."""
    cloud = Cloud(ns, tmp_path, tls=True)
    try:
        under_attack(ns, kind, 4, cloud.port, cloud.signed, Status(cloud.process.pid), 250)
    finally:
        cloud.stop()


@pytest.mark.parametrize("when", ["at-start", "later"])
def test_the_cloud_out_of_descriptors(ns, tmp_path, when):
    """Where there are few descriptors there are fewer connections: the database needs some."""
    cloud = Cloud(ns, tmp_path, nofile="300:300" if when == "at-start" else "1024:")
    try:
        if when == "later":
            run(["prlimit", f"--pid={cloud.process.pid}", "--nofile=100:100"])
        under_attack(ns, "idle", 4, cloud.port, cloud.signed, Status(cloud.process.pid), 250)
        assert cloud.log.read_text().count("cannot accept a connection") < 5, "the log grows with each attempt"
    finally:
        cloud.stop()


def test_what_callers_make_up_leaves_nothing_behind(ns, tmp_path):
    """Serial numbers, refused changes, keys: neither memory nor the audit log grows with them."""
    cloud = Cloud(ns, tmp_path)
    try:
        status = Status(cloud.process.pid)

        def refused(**params):
            with contextlib.suppress(AssertionError), ns.inside():
                cloud.signed(4, **params)

        for n in range(100):
            refused(action="PullSmartAGConfig", SmartAGId="sag-x", SmartAGSn=f"warm-{n}", Revision=0, Wait=0)
        before = status.kb("VmRSS")
        for n in range(1500):
            sn = f"made-up-{n}-" + "x" * 10_000
            refused(action="PullSmartAGConfig", SmartAGId="sag-x", SmartAGSn=sn, Revision=0, Wait=0)
        grown = status.kb("VmRSS") - before
        print(f"1,500 made-up serial numbers of 10 kB: {grown} kB more")
        assert grown < 8 * 1024
        start = time.monotonic()
        for _ in range(300):
            refused(action="DeleteACL", AclId="acl-x", Junk="y" * 50_000)
        took = time.monotonic() - start
        rows = run([program("sag-cloud", "SAG_CLOUD_BIN"), "audit", *cloud.db, "--json", "--limit", "0"]).stdout.splitlines()
        assert 0 < len(rows) <= 20 + 10 * took and max(map(len, rows)) < 4000, f"{len(rows)} rows in {took:.1f} s"
        assert cloud.metric("sag_cloud_audit_left_out_total") == 300 - len(rows)
    finally:
        cloud.stop()


HOSTILE = "x\n2026-11-29T00:00:00Z ERROR forged\x1b[2J\u202e\u2028"


def test_the_cloud_prints_what_callers_send_on_one_line(ns, tmp_path):
    cloud = Cloud(ns, tmp_path)
    try:
        with ns.inside():
            cloud.signed(4, action="CreateACL", Name="fine", Junk=HOSTILE)
        with contextlib.suppress(AssertionError), ns.inside():
            cloud.signed(4, action=HOSTILE)
        audit = [program("sag-cloud", "SAG_CLOUD_BIN"), "audit", *cloud.db]
        for text in (cloud.log.read_text(), run(audit).stdout, run([*audit, "--json"]).stdout):
            assert "forged" in text
            check_one_line(text)
    finally:
        cloud.stop()


def check_one_line(text):
    assert not any(line.startswith("2026-11-29T00:00:00Z ERROR") for line in text.split("\n"))
    assert not any(c in text for c in "\x1b\u202e\u2028"), text


# The gateway.

METRICS = 9477


@pytest.fixture
def metered(lab, gateway):
    """The gateway, with its metrics where everybody in its namespace reaches them."""
    add_addresses(lab.gw)
    config = lab_config(metrics=f"[::]:{METRICS}")
    gateway.ensure(config)
    return gateway


@pytest.mark.sag
@pytest.mark.parametrize("kind", KINDS)
def test_others_read_the_metrics_and_use_the_control_socket(lab, metered, kind, family):
    def call(family):
        assert "sag_uptime_seconds" in request(family, "/metrics", METRICS)
        assert metered.status()["version"]

    descriptors = under_attack(lab.gw, kind, family, METRICS, call, Status(metered.pid()), resident(metered) + 100)
    assert descriptors < 400


def resident(gateway):
    return Status(gateway.pid()).kb("VmRSS") // 1024


def control(lab):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(3)
    sock.connect(lab.socket)
    return sock


LINE = b'{"v":1,"id":1,"op":"routes","limit":1000}\n'
BIG = b'{"v":1,"id":1,"op":"config-show"}\n'


@pytest.mark.sag
def test_others_use_the_control_socket(lab, metered):
    """Many clients, halves of requests, answers that nobody reads."""
    before = resident(metered)
    clients = []

    def more(data):
        with contextlib.suppress(OSError):
            sock = control(lab)
            clients.append(sock)
            sock.setblocking(False)
            for _ in range(200):
                sock.send(data)

    stop = threading.Event()

    def flood():
        while not stop.is_set():
            for data in (LINE[:-1], BIG * 100, b""):
                more(data)
            while len(clients) > 500:
                clients.pop(0).close()

    floods = [threading.Thread(target=flood) for _ in range(2)]
    [t.start() for t in floods]
    try:
        times = []
        end = time.monotonic() + DURING
        while time.monotonic() < end:
            start = time.monotonic()
            try:
                metered.status()
                times.append(time.monotonic() - start)
            except AssertionError:
                times.append(99)
        most = resident(metered)
    finally:
        stop.set()
        [t.join() for t in floods]
        [sock.close() for sock in clients]
    quick = sum(t <= 3 for t in times) / len(times)
    print(f"{quick:.0%} of {len(times)} calls within 3 s, longest {max(t for t in times):.2f} s; {before} MB, then {most} MB")
    assert quick >= 0.95 and most < before + 200
    assert metered.status()["version"]


@pytest.mark.sag
def test_the_control_socket_has_descriptors_in_reserve(lab, metered):
    """The daemon may open nothing more; who reconfigures it still comes in."""
    pid = metered.pid()
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = min(set(range(len(used) + 1)) - used)
    limits = run(["prlimit", f"--pid={pid}", "--nofile", "--output=SOFT,HARD", "--noheadings"]).stdout.split()
    run(["prlimit", f"--pid={pid}", f"--nofile={free}:{limits[1]}"])
    try:
        for _ in range(20):
            assert metered.status()["version"]
    finally:
        run(["prlimit", f"--pid={pid}", f"--nofile={':'.join(limits)}"])


# The agent.


@pytest.mark.parametrize("kind", ["dense", "deep", "long", "words"])
def test_the_agent_bounds_answers(tmp_path, kind):
    """60 MB of an answer that would become gigabytes."""
    size = 60_000_000
    answer = {
        "dense": lambda: '{"Revision":1,"Changed":true,"Config":{"Routes":[' + "{}," * (size // 3) + "{}]}}",
        "deep": lambda: "[" * size,
        "long": lambda: '{"Revision":"' + "x" * size + '"}',
        "words": lambda: '{"Revision":1,"Config":{"AclIds":"' + "a," * (7 << 20) + '"}}',
    }[kind]().encode()
    with agent_of(tmp_path, answer) as (agent, served):
        within(15, "three answers", lambda: served() >= 3)
        most = Status(agent.pid).kb("VmHWM")
        print(f"{len(answer) // 1_000_000} MB of answer: {most // 1024} MB")
        assert agent.poll() is None and most < 150 * 1024, f"{most // 1024} MB"


def test_the_agent_logs_what_the_cloud_sends_on_one_line(tmp_path):
    refusal = json.dumps({"Code": f"Bad{HOSTILE}", "Message": HOSTILE}).encode()
    with agent_of(tmp_path, refusal, status=400) as (_, served):
        within(15, "answers", lambda: served() >= 2 and "forged" in (tmp_path / "log").read_text())
    check_one_line((tmp_path / "log").read_text())


@contextlib.contextmanager
def agent_of(folder, answer, status=200):
    """An agent whose cloud gives this answer to everything: the process, and a function that counts the answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    count = []

    def serve():
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n".encode()
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), sock:
                sock.recv(65536)
                sock.sendall(head)
                sock.sendall(answer)
            count.append(1)

    threading.Thread(target=serve, daemon=True).start()
    config = folder / "agent.toml"
    config.touch(mode=0o600)
    config.write_text(f"""
endpoint = "http://127.0.0.1:{listener.getsockname()[1]}"
region_id = "cn-shanghai"
smart_ag_id = "sag-1"
smart_ag_sn = "sn1"
access_key_id = "id"
access_key_secret = "secret"
retry_max = 0.5
vcpe_socket = "{folder}/none.sock"
state_dir = "{folder}/state"
dhcp_client = "off"
""")
    agent = subprocess.Popen(
        [program("sag-agent", "SAG_AGENT_BIN"), "run", "--config", config], stderr=open(folder / "log", "ab"),
    )
    try:
        yield agent, lambda: len(count)
    finally:
        agent.kill()
        agent.wait()
        # Ends the thread that accepts.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
