"""The API catalogue as the tests see it: operations and the documented form of their answers."""

from __future__ import annotations

import json
import pathlib
from typing import Any

PATH = pathlib.Path(__file__).parents[2] / "cloud/catalogue/smartag-2018-03-13.json"
OPERATIONS = {o["name"]: o for o in json.loads(PATH.read_text())["operations"]}

TYPES = {
    "String": str,
    "Integer": int,
    "Long": int,
    "Boolean": bool,
    "Object": dict,
    "Array<Object>": list,
    "Array<String>": list,
}


def _fields(op: str) -> dict[Any, Any]:
    return {f["path"]: f["type"] for f in OPERATIONS[op]["response_fields"]}


def problems(op: str, answer: Any) -> list[Any]:
    """Where an answer differs from the documented form."""
    fields = _fields(op)
    found = []

    def walk(value: Any, path: str) -> None:
        for key, item in value.items():
            at = f"{path}{key}"
            kind = fields.get(at)
            if kind is None:
                found.append(f"{op}: {at} is not documented")
                continue
            if type(item) is not TYPES[kind]:
                found.append(f"{op}: {at} is {type(item).__name__}, documented {kind}")
                continue
            if isinstance(item, dict):
                walk(item, f"{at}.")
            elif kind == "Array<Object>":
                for row in item:
                    walk(row, f"{at}[].")
            elif kind == "Array<String>" and any(type(x) is not str for x in item):
                found.append(f"{op}: {at} holds something else than text")

    walk(answer, "")
    found += [f"{op}: {p} of the example is missing" for p in missing(op, answer)]
    return found


def missing(op: str, answer: Any) -> list[Any]:
    """Keys that the printed example always shows and the answer lacks."""
    fields = _fields(op)
    out = []

    def unwrap(value: Any, path: str) -> Any | dict[str, Any]:
        """An example may print a wrapped list bare."""
        if isinstance(value, list) and fields.get(path) == "Object":
            inner = [p for p in fields if p.startswith(path + ".") and fields[p].startswith("Array")]
            inner = min(inner, key=len)
            return {inner[len(path) + 1 :]: value}
        return value

    def walk(example: Any, got: Any, path: str) -> None:
        for key in set.intersection(*(set(e) for e in example)) if example else ():
            at = f"{path}{key}"
            if at not in fields:
                continue
            if any(key not in g for g in got):
                out.append(at)
                continue
            examples = [unwrap(e[key], at) for e in example]
            values = [g[key] for g in got]
            if all(isinstance(e, dict) for e in examples):
                walk(examples, values, f"{at}.")
            elif fields[at] == "Array<Object>":
                rows = [r for v in values for r in v]
                walk([r for e in examples for r in e], rows, f"{at}[].")

    walk([OPERATIONS[op]["response"]], [answer], "")
    return out
