"""HTTP/2 by clients as people use them: over TLS by negotiation (ALPN), and in the clear by prior knowledge. What clients
that misuse it meet: `crates/http/tests/http2.rs`."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wire
from clients import Acs3, Record
from conftest import BIN, Server, access_key
from helpers import gateway, report

httpx = pytest.importorskip("httpx", reason="httpx is not installed: use tests/sdk/run.sh")
h2 = pytest.importorskip("h2", reason="h2 is not installed: use tests/sdk/run.sh")
pytest.importorskip("h2.connection")


@pytest.fixture(scope="module", params=["plain", "tls"])
def site(request: pytest.FixtureRequest, server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server, the beginning of its URLs, and what its clients trust."""
    if request.param == "plain":
        yield server, f"http://{server.endpoint}", None
        return
    tmp = tmp_path_factory.mktemp("http2")
    subprocess.run([BIN, "cert", "--name", "127.0.0.1", "--out", tmp / "tls"], check=True, capture_output=True)
    cert, private, ca = (tmp / "tls" / f for f in ("server.pem", "server-key.pem", "ca.pem"))
    it = Server(tmp, "--tls-cert", str(cert), "--tls-key", str(private), cafile=ca)
    yield it, f"https://{it.endpoint}", ca
    it.stop()


@pytest.fixture(scope="module")
def key(site: Any) -> tuple[str, str]:
    return access_key(site[0].db, f"http2-{os.getpid()}-{site[1][4]}")


@pytest.fixture
def client(site: Any) -> Iterator[Any]:
    _, base, ca = site
    verify = ssl.create_default_context(cafile=ca) if ca else True
    # By TLS both are offered, and the server chooses.
    with httpx.Client(base_url=base, http1=bool(ca), http2=True, verify=verify, timeout=30, trust_env=False) as it:
        yield it


def test_calls(client: Any, key: tuple[str, str]) -> None:
    """GET and POST, a body that is compressed, an answer that is, and errors in the form of the API."""
    form = wire.signed(key, "POST", "CreateACL", Name="h2")
    posted = client.post("/", data=form)
    assert (posted.status_code, posted.http_version) == (200, "HTTP/2"), posted.text
    got = client.get("/", params=wire.signed(key, "GET", "DescribeRegions"))
    assert got.status_code == 200 and got.headers["content-encoding"] == "gzip"
    assert "cn-shanghai" in got.text and got.headers["x-acs-request-id"] == got.json()["RequestId"]
    small = gzip.compress(urllib.parse.urlencode(wire.signed(key, "POST", "DescribeACLs", Name="h2")).encode())
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
    assert client.post("/", content=small, headers=kind).json()["TotalCount"] == 1
    refused = client.delete("/")
    assert (refused.status_code, refused.json()["Code"]) == (405, "UnsupportedHTTPMethod")
    assert client.get("/nowhere").json()["Code"] == "InvalidPath.NotFound"
    large = client.post("/", content=b"A=" + b"a" * 1_100_000, headers={"Content-Type": kind["Content-Type"]})
    assert (large.status_code, large.json()["Code"]) == (413, "RequestTooLarge")
    assert client.get("/healthz").text == "ok\n"


def test_the_host_is_signed(client: Any, key: tuple[str, str], site: Any) -> None:
    """ACS3 signs the host, which HTTP/2 has in `:authority`."""
    driver = Acs3(site[0].endpoint, key, Record())
    url, headers, body = driver.signed_form("DescribeRegions")
    answer = client.post(url, content=body, headers=headers)
    assert (answer.status_code, answer.http_version) == (200, "HTTP/2"), answer.text
    wrong = {**headers, "host": "elsewhere"}
    assert client.post(url, content=body, headers=wrong).json()["Code"] in (
        "SignatureDoesNotMatch",
        "SignatureNonceUsed",
    )


class Streams:
    """One connection whose streams are read as they come. httpx reads for one stream at a time: an answer that is here
    already can wait for the stream before it in the queue, here for the long poll."""

    def __init__(self, base: str, ca: Path | None) -> None:
        url = urllib.parse.urlsplit(base)
        self.authority, self.scheme = url.netloc, url.scheme
        self.socket = socket.create_connection((url.hostname, url.port), timeout=30)
        if ca:
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=url.hostname)
            assert self.socket.selected_alpn_protocol() == "h2"
        self.state = h2.connection.H2Connection()
        self.state.initiate_connection()
        self.state.increment_flow_control_window(2**24)
        self.bodies: dict[int, bytes] = {}
        self.ended: list[int] = []

    def post(self, form: dict[str, str]) -> int:
        """The number of the stream on which the call was sent."""
        stream = self.state.get_next_available_stream_id()
        head = {":method": "POST", ":path": "/", ":scheme": self.scheme, ":authority": self.authority}
        self.state.send_headers(stream, [*head.items(), ("content-type", "application/x-www-form-urlencoded")])
        self.state.send_data(stream, urllib.parse.urlencode(form).encode(), end_stream=True)
        self.socket.sendall(self.state.data_to_send())
        self.bodies[stream] = b""
        return stream

    def answers(self, streams: list[int]) -> list[Any]:
        """What came on the streams, when all of them have ended."""
        while not set(streams) <= set(self.ended):
            data = self.socket.recv(65536)
            assert data, "the server closed the connection"
            for event in self.state.receive_data(data):
                if isinstance(event, h2.events.ResponseReceived):
                    assert (b":status", b"200") in event.headers, event
                elif isinstance(event, h2.events.DataReceived):
                    self.bodies[event.stream_id] += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    self.ended.append(event.stream_id)
                assert not isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)), event
            self.socket.sendall(self.state.data_to_send())
        return [json.loads(self.bodies[s]) for s in streams]


def test_a_long_poll_beside_other_calls(client: Any, key: tuple[str, str], site: Any) -> None:
    """One connection: a change wakes the agent that waits on it."""
    _, base, ca = site

    class Api:
        def call(self, action: str, **params: Any) -> Any:
            words = {k: str(v).lower() if isinstance(v, bool) else v for k, v in params.items()}
            return client.post("/", data=wire.signed(key, "POST", action, **words)).json()

        extension = call

    sag, sns = gateway(Api())
    report(Api(), sag, sns[0])
    device = dict(SmartAGId=sag, SmartAGSn=sns[0])
    revision = Api().call("PullSmartAGConfig", Revision=0, **device)["Revision"]
    one = Streams(base, ca)
    with one.socket:

        def call(action: str, **params: Any) -> int:
            return one.post(wire.signed(key, "POST", action, **params))

        waiting = call("PullSmartAGConfig", Revision=revision, Wait=20, **device)
        for regions in one.answers([call("DescribeRegions") for _ in range(20)]):
            assert regions["Regions"], regions
        assert waiting not in one.ended
        start = time.monotonic()
        _, changed = one.answers(
            [call("ModifySmartAccessGatewayUpBandwidth", SmartAGId=sag, UpBandwidthWan=7), waiting]
        )
        assert time.monotonic() - start < 5
    assert changed["Changed"] and changed["Config"]["Gateway"]["UpBandwidthWan"] == 7


def test_curl(site: Any, key: tuple[str, str], tmp_path: Path) -> None:
    """`--http2` asks to upgrade in the clear, which servers may ignore, and negotiates by TLS."""
    curl = shutil.which("curl")
    if not curl or "HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("no curl with HTTP/2")
    _, base, ca = site
    query = urllib.parse.urlencode(wire.signed(key, "GET", "DescribeRegions"))

    def fetched(how: str, query: str) -> tuple[str, Any]:
        out = tmp_path / "answer"
        command = [
            curl,
            "-sS",
            how,
            "--noproxy",
            "*",
            "-m",
            "20",
            "-o",
            out,
            "-w",
            "%{http_version}",
            f"{base}/?{query}",
        ]
        if ca:
            command += ["--cacert", ca]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return run.stdout, json.loads(out.read_text())

    version, answer = fetched("--http2" if ca else "--http2-prior-knowledge", query)
    assert version == "2" and "Regions" in answer
    query = urllib.parse.urlencode(wire.signed(key, "GET", "DescribeRegions"))
    version, answer = fetched("--http1.1" if ca else "--http2", query)
    assert version == "1.1" and "Regions" in answer
