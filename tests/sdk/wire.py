"""Signed requests of version 1.0 without an SDK."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Sequence
from typing import Any


def quote(s: str) -> str:
    return urllib.parse.quote(str(s), safe="~")


def signed(key: Sequence[str], method: str, action: str, **params: Any) -> dict[str, Any]:
    """A request of version 1.0, ready to send."""
    params = {
        "Action": action, "Version": "2018-03-13", "AccessKeyId": key[0], "SignatureMethod": "HMAC-SHA1",
        "SignatureVersion": "1.0", "SignatureNonce": str(uuid.uuid4()), "RegionId": "cn-shanghai",
        "Timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **params,
    }
    params = {k: v for k, v in params.items() if v is not None}
    query = "&".join(f"{quote(k)}={quote(params[k])}" for k in sorted(params))
    text = f"{method}&%2F&{quote(query)}"
    digest = hmac.new(f"{key[1]}&".encode(), text.encode(), hashlib.sha1).digest()
    return {**params, "Signature": base64.b64encode(digest).decode()}


def send(server: Any, params: dict[str, Any], method: str = "GET", body: Any = False) -> tuple[Any, str]:
    query = urllib.parse.urlencode(params)
    url = f"http://{server.endpoint}/"
    data = None
    if body:
        data = query.encode()
    else:
        url += "?" + query
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method), timeout=10) as r:
            return r.status, r.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()
