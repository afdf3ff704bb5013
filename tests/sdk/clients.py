"""The two official SDKs behind one `call`, checking every answer."""

from __future__ import annotations

import atexit
import collections
import gzip
import hashlib
import hmac
import importlib
import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from alibabacloud_smartag20180313 import models
from alibabacloud_smartag20180313.client import Client
from alibabacloud_tea_openapi import utils_models
from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkcore.request import CommonRequest
from darabonba.runtime import RuntimeOptions

import catalogue
import wire

REGION = "cn-shanghai"


class ApiError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code = status, code


class Record:
    """What was called, answered and refused, by SDK."""

    def __init__(self) -> None:
        self.answered = collections.Counter()
        self.checked = set()
        self.xml = set()
        self.refused = collections.defaultdict(set)


class Driver:
    """Calls operations by their names and checks each answer against the catalogue."""

    def __init__(self, kind: str, endpoint: str, key: Sequence[str], record: Any) -> None:
        self.kind, self.record = kind, record
        self.endpoint, self.key = endpoint, key

    def call(self, op: str, **params: Any) -> Any:
        params.setdefault("RegionId", REGION)
        try:
            answer = self.send(op, params)
        except ApiError as e:
            self.record.refused[op].add((e.status, e.code))
            raise
        self.record.answered[op] += 1
        if op in catalogue.OPERATIONS:
            found = catalogue.problems(op, answer)
            assert not found, "\n".join(found)
            self.record.checked.add(op)
        return answer

    def refused(self, op: str, code: str, status: int | None = None, **params: Any) -> None:
        """The call fails with this code, and with the documented status."""
        try:
            answer = self.call(op, **params)
        except ApiError as e:
            assert e.code == code, f"{op}: {e}, expected {code}"
            documented = [x["http"] for x in catalogue.OPERATIONS[op]["errors"] if x["code"] == code]
            if status or documented:
                assert e.status == (status or documented[0]), f"{op}: {e}"
            return
        raise AssertionError(f"{op} was answered, expected {code}: {answer}")


class Acs3(Driver):
    """alibabacloud-smartag20180313."""

    def __init__(self, endpoint: str, key: Sequence[str], record: Any) -> None:
        super().__init__("acs3", endpoint, key, record)
        self.client = Client(
            utils_models.Config(
                access_key_id=key[0],
                access_key_secret=key[1],
                endpoint=endpoint,
                protocol="http",
                region_id=REGION,
            )
        )
        self.raw = None
        inner = self.client.call_api

        def call_api(params: dict[str, Any], request: Any, runtime: Any) -> Any:
            # The generated code names HTTPS; a test server speaks HTTP.
            params.protocol = "HTTP"
            self.raw = inner(params, request, runtime)
            return self.raw

        self.client.call_api = call_api
        self.methods = {
            name.lower().replace("_", ""): getattr(self.client, name)
            for name in dir(self.client)
            if name.endswith("with_options")
        }

    def send(self, op: str, params: dict[str, Any]) -> Any:
        request = getattr(models, f"{op}Request")()
        request = request.from_map(params) or request
        method = self.methods[f"{op.lower()}withoptions"]
        try:
            response = method(request, RuntimeOptions())
        except Exception as e:
            raise translated(e) from e
        body = self.raw["body"]
        parsed = response.body.to_map()
        # Fields that the SDK's model does not have would not reach its users.
        lost = lost_fields(body, parsed)
        known = catalogue.OPERATIONS[op]["response_fields"]
        printed_only = {f["path"] for f in known if f.get("only_in_example")}
        lost = [f for f in lost if f not in printed_only]
        assert not lost, f"{op}: the SDK's model loses {lost}"
        return body

    def extension(self, action: str, **params: Any) -> Any:
        """Calls of agents: signed like all others, but not in the SDK."""
        params.setdefault("RegionId", REGION)
        call = utils_models.Params(
            action=action, version="2018-03-13", protocol="HTTP", pathname="/", method="POST",
            auth_type="AK", style="RPC", req_body_type="formData", body_type="json",
        )
        request = utils_models.OpenApiRequest(query={k: str(v) for k, v in params.items()})
        try:
            return self.client.call_api(call, request, RuntimeOptions(read_timeout=60_000))["body"]
        except Exception as e:
            raise translated(e) from e

    def signed_form(self, action: str, headers: dict[str, str] | None = None, pack: Any = bytes,
                    **params: Any) -> tuple[str, dict[str, str], bytes]:
        """Path, headers and body of a form, as ACS3 signs it; `pack` makes the bytes that are sent and signed."""
        body = pack(urllib.parse.urlencode({"RegionId": REGION, **params}).encode())
        digest = hashlib.sha256(body).hexdigest()
        signed = {
            "host": self.endpoint, "x-acs-action": action, "x-acs-version": "2018-03-13", "x-acs-content-sha256": digest,
            "x-acs-date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "x-acs-signature-nonce": str(uuid.uuid4()),
        }
        names = ";".join(sorted(signed))
        canonical = "".join(f"{n}:{signed[n]}\n" for n in sorted(signed))
        text = f"POST\n/\n\n{canonical}\n{names}\n{digest}"
        text = "ACS3-HMAC-SHA256\n" + hashlib.sha256(text.encode()).hexdigest()
        signature = hmac.new(self.key[1].encode(), text.encode(), hashlib.sha256).hexdigest()
        signed |= {
            "Authorization": f"ACS3-HMAC-SHA256 Credential={self.key[0]},SignedHeaders={names},Signature={signature}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        return "/", {**signed, **(headers or {})}, body

    def compressed(self, action: str, **params: Any) -> Any:
        """A call whose form is compressed; the signature covers the compressed bytes."""
        path, headers, body = self.signed_form(action, {"Content-Encoding": "gzip"}, gzip.compress, **params)
        request = urllib.request.Request(f"http://{self.endpoint}{path}", data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


def lost_fields(raw: Any, parsed: Any, path: str = "") -> Any:
    if isinstance(raw, dict):
        out = []
        for k, v in raw.items():
            at = f"{path}.{k}" if path else k
            if not isinstance(parsed, dict) or k not in parsed:
                out.append(at)
            else:
                out += lost_fields(v, parsed[k], at)
        return out
    if isinstance(raw, list):
        if not isinstance(parsed, list) or len(parsed) != len(raw):
            return [path]
        return [x for a, b in zip(raw, parsed) for x in lost_fields(a, b, f"{path}[]")]
    return [] if str(raw) == str(parsed) else [path]


def translated(e: Exception) -> ApiError:
    code = getattr(e, "code", None)
    status = getattr(e, "status_code", None)
    if code is None or status is None:
        raise e
    return ApiError(status, code, getattr(e, "message", ""))


def flat(name: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    """A list as parameters: of texts, or of objects."""
    out = []
    for i, item in enumerate(items, 1):
        if isinstance(item, dict):
            out += [(f"{name}.{i}.{key}", value) for key, value in item.items()]
        else:
            out.append((f"{name}.{i}", item))
    return out


class Node(Driver):
    """The vendor's libraries for Node: `openapi` (ACS3) or `pop` (version 1.0)."""

    def __init__(self, kind: str, modules: str, endpoint: str, key: Sequence[str], record: Any) -> None:
        super().__init__(kind, endpoint, key, record)
        shell = Path(__file__).with_name("node_shell.js")
        self.process = subprocess.Popen(
            ["node", str(shell), kind, endpoint, *key], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            env={**os.environ, "NODE_PATH": modules, "NO_PROXY": "*"},
        )
        atexit.register(self.process.kill)
        assert self.process.stdout.readline(), "node ends at once"

    def send(self, op: str, params: dict[str, Any]) -> Any:
        self.process.stdin.write(json.dumps({"op": op, "params": params}) + "\n")
        line = self.process.stdout.readline()
        assert line, f"{op}: node has ended"
        answer = json.loads(line)
        if "ok" in answer:
            return answer["ok"]
        refused = answer["refused"]
        raise ApiError(refused["status"], refused["code"], refused["message"])

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


class V1(Driver):
    """aliyun-python-sdk-smartag."""

    def __init__(self, endpoint: str, key: Sequence[str], record: Any) -> None:
        super().__init__("v1", endpoint, key, record)
        self.client = AcsClient(key[0], key[1], REGION, auto_retry=False)

    def request(self, op: str, params: dict[str, Any]) -> Any:
        try:
            module = importlib.import_module(f"aliyunsdksmartag.request.v20180313.{op}Request")
        except ModuleNotFoundError:
            # Operations that are newer than this SDK: its users send them by name.
            request = CommonRequest(domain=self.endpoint, version="2018-03-13", action_name=op)
            request.set_method("POST")
        else:
            request = getattr(module, f"{op}Request")()
            request.set_endpoint(self.endpoint)
        request.set_protocol_type("http")
        for name, value in params.items():
            if isinstance(value, (list, tuple)):
                for key, item in flat(name, value):
                    request.add_query_param(key, item)
                continue
            setter = getattr(request, f"set_{name}", None)
            if setter is None:
                request.add_query_param(name, value)
            else:
                setter(value)
        return request

    def send(self, op: str, params: dict[str, Any]) -> Any:
        try:
            answer = json.loads(self.client.do_action_with_exception(self.request(op, params)))
            if op in catalogue.OPERATIONS and op.startswith(("Describe", "List", "Get", "Discribe", "View")):
                self.same_in_xml(op, params, answer)
            return answer
        except ServerException as e:
            raise ApiError(e.get_http_status(), e.get_error_code(), e.get_error_msg()) from e

    def same_in_xml(self, op: str, params: dict[str, Any], answer: Any) -> None:
        """The same query in XML has the same fields in the same places."""
        flat = {}
        for name, value in params.items():
            rows = enumerate(value, 1) if isinstance(value, (list, tuple)) else [(None, value)]
            flat.update({f"{name}.{i}" if i else name: v for i, v in rows})
        # The SDK always asks for JSON.
        status, text = wire.send(self, wire.signed(self.key, "GET", op, Format="XML", **flat))
        assert status == 200, text
        root = ElementTree.fromstring(text)
        assert root.tag == f"{op}Response"
        assert sorted(xml_paths(root)) == sorted(json_paths(answer)), op
        self.record.xml.add(op)


def xml_paths(element: Any, path: str = "") -> list[Any] | list[str]:
    if len(element) == 0:
        return [path]
    return [p for child in element for p in xml_paths(child, f"{path}/{child.tag}")]


def json_paths(value: Any, path: str = "") -> Any:
    """Where the leaves are; a list is its elements, each under the list's own name."""
    if isinstance(value, dict) and value:
        out = []
        for k, v in value.items():
            for item in v if isinstance(v, list) else [v]:
                out += json_paths(item, f"{path}/{k}")
        # An object that holds nothing but empty lists is an empty element.
        return out or [path]
    return [path]
