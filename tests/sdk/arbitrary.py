"""Arbitrary parameters for the operations of the catalogue, from a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

WORDS = [
    "", "0", "-1", "1", "99999999999999999999", "true", "null", "[]", "{}", "a", "中文", "'; DROP TABLE objects; --",
    "10.0.0.0/8", "0.0.0.0/0", "::1", "1/65535", "-1/-1", "65536/1", "%00", "\x00", "\u2028", "𝔘" * 40, "x" * 5000,
    "2019-07-14T16:41:33+0800", "0000-00-00T00:00:00Z", "201913", "1e9", "..", "$1", "😀",
]


def value(param: dict[str, Any], rng: Random, known: dict[str, Any]) -> Any:
    kind = rng.random()
    if kind < 0.35 and "enum" in param:
        return rng.choice(param["enum"])
    if kind < 0.5 and known.get(param["name"]):
        return rng.choice(known[param["name"]])
    if kind < 0.65 and "example" in param:
        return param["example"]
    if kind < 0.8:
        return str(rng.randint(-5, 70_000))
    return rng.choice(WORDS)


def params(operation: dict[str, Any], rng: Random, known: dict[str, Any]) -> dict[str, Any]:
    """Parameters of one call. `known`: identifiers by parameter, mostly used, so that the handlers are reached."""
    out = {}
    for p in operation["request"]:
        if p["name"] in known and rng.random() < 0.9:
            out[p["name"]] = rng.choice(known[p["name"]])
        elif rng.random() < (0.95 if p.get("required") else 0.4):
            name = f"{p['name']}.{rng.choice([0, 1, 2, 999999999999])}" if p.get("list") else p["name"]
            out[name] = value(p, rng, known)
    out.setdefault("RegionId", "cn-shanghai")
    return out


def query(rng: Random) -> str:
    """A query or body that no client would send."""
    pieces = ["Action", "Version", "&", "=", "%", "%ZZ", "%C3", "Format=XML", "&&", "SignatureNonce=", "\\", "+", "é", "Signature=A", ";"]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(0, 30)))


def request(rng: Random) -> Any:
    """Bytes that are hardly HTTP."""
    if rng.random() < 0.3:
        return rng.randbytes(rng.randint(0, 3000))
    method = rng.choice(["GET", "POST", "PUT", "get", "G" * 5000, ""])
    target = rng.choice(["/", "/?" + query(rng), "*", "//", "/\x00", "/" + "a" * 70_000, "http://x/?Action=A"])
    version = rng.choice(["HTTP/1.1", "HTTP/1.0", "HTTP/9.9", ""])
    headers = [
        "Host: x", "Content-Length: 10", "Content-Length: -1", "Content-Length: 99999999999", "Transfer-Encoding: chunked",
        "Authorization: ACS3-HMAC-SHA256 Credential=,SignedHeaders=,Signature=", "x-acs-action: " + query(rng),
        "x-acs-version: 2018-03-13", "Content-Type: application/x-www-form-urlencoded", "Expect: 100-continue", "A: " + "b" * 20_000,
    ]
    some = rng.sample(headers, rng.randint(0, 5))
    return ("\r\n".join([f"{method} {target} {version}", *some, "", query(rng)])).encode("utf-8", "surrogatepass")
