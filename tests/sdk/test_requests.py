"""What clients of other languages send: forms and JSON, fractions of a second, unknown paths and methods, pages of
browsers, retries with a token. The two SDKs do none of it by themselves."""

import gzip
import http.client
import json
import os
import time
import urllib.parse
import xml.etree.ElementTree as ET

import pytest

from clients import REGION, V1, Acs3, ApiError, Record
from conftest import Server, access_key
from wire import send, signed


@pytest.fixture(scope="module")
def key(server):
    return access_key(server.db, f"requests-{os.getpid()}")


def http_call(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(server.endpoint, timeout=10)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        r = connection.getresponse()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read().decode()
    finally:
        connection.close()


def error(answer):
    """Status and code of an answer, which has the form of the API and the request id in its headers as well."""
    status, headers, text = answer
    body = json.loads(text)
    assert {"RequestId", "HostId", "Code", "Message"} <= set(body), text
    assert headers["x-acs-request-id"] == body["RequestId"] and len(body["RequestId"]) == 36
    return status, body["Code"]


def test_every_path_and_method_is_answered_in_the_form_of_the_api(server):
    for method in ("GET", "POST", "PUT"):
        assert error(http_call(server, method, "/v1/regions")) == (404, "InvalidPath.NotFound")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "BREW"):
        answer = http_call(server, method, "/?Action=DescribeRegions")
        assert error(answer) == (405, "UnsupportedHTTPMethod") and answer[1]["allow"] == "GET, POST"
    assert error(http_call(server, "POST", "/metrics")) == (405, "UnsupportedHTTPMethod")
    status, headers, text = http_call(server, "HEAD", "/")
    assert (status, text) == (405, "") and "x-acs-request-id" in headers
    assert http_call(server, "HEAD", "/healthz")[0] == 200


def test_gzip(server, key):
    """Answers for those who accept it, bodies of those who send it, in both signatures, and nothing larger than its bound."""
    def exchange(data, **headers):
        connection = http.client.HTTPConnection(server.endpoint, timeout=10)
        try:
            connection.request("POST", "/", body=data, headers=headers)
            r = connection.getresponse()
            return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
        finally:
            connection.close()

    form = urllib.parse.urlencode
    status, headers, body = exchange(form(signed(key, "POST", "DescribeRegions")), **{"Accept-Encoding": "br, gzip;q=0.9"})
    assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept-Encoding")
    plain = gzip.decompress(body)
    assert len(body) < len(plain) / 2 and "cn-shanghai" in plain.decode()
    for refused in ("identity", "gzip;q=0"):
        status, headers, body = exchange(form(signed(key, "POST", "DescribeRegions")), **{"Accept-Encoding": refused})
        assert status == 200 and "content-encoding" not in headers and "cn-shanghai" in body.decode()
    # A body, by the signature of version 1.0 and by ACS3, whose hash is that of the bytes that are sent.
    sent = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    data = gzip.compress(form(signed(key, "POST", "DescribeRegions", Format="XML")).encode())
    status, headers, body = exchange(data, **sent)
    assert status == 200 and body.startswith(b"<?xml"), body
    acs3 = Acs3(server.endpoint, key, Record())
    assert acs3.compressed("CreateACL", Name="squeezed")["AclId"].startswith("acl-")
    for wrong, coding, expected in (
        (b"A=1", "gzip", (400, "InvalidRequest.Body")), (data[:-4], "gzip", (400, "InvalidRequest.Body")),
        (data, "br", (415, "UnsupportedContentEncoding")), (gzip.compress(b"A=" + b"x" * 2_000_000), "gzip",
                                                              (413, "RequestTooLarge")),
    ):
        status, headers, body = exchange(wrong, **{**sent, "Content-Encoding": coding})
        assert (status, json.loads(body)["Code"]) == expected and headers["x-acs-request-id"]


def test_every_body_is_answered_in_the_form_of_the_api(server):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http_call(server, "POST", "/", b"A=" + b"x" * 2_000_000, form)
    assert error(answer) == (413, "RequestTooLarge") and answer[1]["connection"] == "close"
    for kind in ("multipart/form-data; boundary=x", "text/plain", "application/octet-stream"):
        assert error(http_call(server, "POST", "/", b"A=1", {"Content-Type": kind})) == (415, "UnsupportedContentType")
    assert error(http_call(server, "POST", "/", b"\xff\xfe=1", form)) == (400, "InvalidParameter")
    assert error(http_call(server, "POST", "/", b"{", {"Content-Type": "application/json"})) == (400, "InvalidParameter")
    status, _, text = http_call(server, "POST", "/?Format=XML", b"A=1", {"Content-Type": "text/plain"})
    assert status == 415 and ET.fromstring(text).find("Code").text == "UnsupportedContentType"


def test_forms_and_json(server, key):
    for headers, written in [
        ({"Content-Type": "application/json"}, json.dumps),
        ({}, json.dumps),
        ({}, lambda p: "&".join(f"{k}={http_quote(v)}" for k, v in p.items())),
    ]:
        params = signed(key, "POST", "CreateQos", QosName="body", QosDescription="a")
        connection = http.client.HTTPConnection(server.endpoint, timeout=10)
        connection.putrequest("POST", "/")
        body = written(params).encode()
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        r = connection.getresponse()
        assert r.status == 200, r.read()
        connection.close()


def http_quote(value):
    return "".join(c if c.isalnum() or c in "-_.~" else "".join(f"%{b:02X}" for b in c.encode()) for c in str(value))


def test_a_parameter_in_query_and_form(server, key):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for region, expected in [(REGION, (200, None)), ("cn-beijing", (400, "InvalidParameter"))]:
        params = signed(key, "POST", "DescribeRegions")
        query = "&".join(f"{k}={http_quote(v)}" for k, v in params.items())
        status, _, text = http_call(server, "POST", f"/?{query}", f"RegionId={region}".encode(), form)
        assert (status, json.loads(text).get("Code")) == expected, text


def test_time_stamps_with_fractions(server, key):
    now = time.gmtime()
    for form in ("%Y-%m-%dT%H:%M:%S.123456789Z", "%Y-%m-%dT%H:%M:%S.1Z", "%Y-%m-%dT%H:%M:%S.123456+00:00"):
        status, text = send(server, signed(key, "GET", "DescribeRegions", Timestamp=time.strftime(form, now)))
        assert status == 200, text


def test_wrong_signatures_have_their_own_names(server, key):
    def code(headers=None, **params):
        path = "/?" + "&".join(f"{k}={http_quote(v)}" for k, v in params.items())
        return error(http_call(server, "GET", path, headers=headers))

    assert code({"Authorization": "Bearer x"}) == (400, "InvalidParameter.SignatureMethod")
    assert code({"Authorization": "Credential=a,SignedHeaders=b,Signature=c"}) == (400, "IncompleteSignature")
    assert code({"x-acs-date": "2026-01-01T00:00:00Z", "x-acs-action": "DescribeRegions"}) == (400, "IncompleteSignature")
    long = signed(key, "GET", "DescribeRegions", SignatureNonce="n" * 129)
    assert code(**long) == (400, "InvalidParameter.SignatureNonce")
    sts = signed(key, "GET", "DescribeRegions", SecurityToken="t")
    assert code(**sts) == (400, "InvalidSecurityToken.NotSupported")


def test_a_client_that_is_too_fast_is_told_when_to_come_back(tmp_path):
    s = Server(tmp_path, "--rate-limit", "2", "--cors-origin", "https://console.example.com")
    try:
        key = access_key(s.db, f"fast-{os.getpid()}")
        seen = []
        for _ in range(10):
            query = "&".join(f"{k}={http_quote(v)}" for k, v in signed(key, "GET", "DescribeRegions").items())
            seen.append(http_call(s, "GET", f"/?{query}"))
        refused = [answer for answer in seen if answer[0] == 429]
        assert refused and all(error(answer) == (429, "Throttling.User") for answer in refused)
        assert {(h["retry-after"], h["x-acs-retry-after"]) for _, h, _ in refused} == {("1", "1000")}
        assert all("retry-after" not in h for status, h, _ in seen if status == 200)
        # The same server lets the pages of one origin call it.
        origin = {"Origin": "https://console.example.com", "Access-Control-Request-Headers": "authorization"}
        status, headers, _ = http_call(s, "OPTIONS", "/", headers=origin)
        assert status == 200 and headers["access-control-allow-origin"] == origin["Origin"]
        assert headers["access-control-allow-headers"] == "authorization"
        assert http_call(s, "POST", "/", headers=origin)[1]["access-control-allow-origin"] == origin["Origin"]
        other = http_call(s, "POST", "/", headers={"Origin": "https://evil.example.com"})[1]
        assert "access-control-allow-origin" not in other and other["vary"] == "Origin"
    finally:
        s.stop()


def test_a_token_with_other_parameters(server):
    client = V1(server.endpoint, access_key(server.db, f"token-{os.getpid()}"), Record())
    call = dict(EnterpriseCode="1b" + os.urandom(2).hex()[:3], ClientToken=f"t-{os.getpid()}")
    first = client.call("CreateEnterpriseCode", **call)
    again = client.call("CreateEnterpriseCode", **call)
    assert {**first, "RequestId": ""} == {**again, "RequestId": ""}
    with pytest.raises(ApiError) as e:
        client.call("CreateEnterpriseCode", **{**call, "EnterpriseCode": "abcd1"})
    assert (e.value.status, e.value.code) == (400, "IdempotentParameterMismatch")
