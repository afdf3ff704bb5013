"""Gateway configurations of the tests: the lab's own file, with keys changed and tables added."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
LAB_TOML = ROOT / "configs" / "lab.toml"


def lab_config(extra: Sequence[str] = "", acl: Any = None, **dataplane: Any) -> str:
    """configs/lab.toml with [dataplane] keys set, ACL rules and further tables appended."""
    text = LAB_TOML.read_text()
    for key, value in dataplane.items():
        line = f"{key} = {json.dumps(value)}"
        text, n = re.subn(rf"(?m)^{key} *=.*$", line, text, count=1)
        if n == 0:
            text = text.replace("[dataplane]\n", f"[dataplane]\n{line}\n", 1)
    if acl is not None:
        text += acl_table("acl-1", acl)
    return text + extra


def acl_table(acl_id: str, rules: Sequence[dict[str, Any]]) -> str:
    """An [[acl]] of dicts; what a rule does not say is "everything", direction out, type WAN."""
    lines = ["", "[[acl]]", f'id = "{acl_id}"']
    for number, rule in enumerate(rules, 1):
        # Both networks of a rule are of one IP version.
        everything = "::/0" if ":" in rule.get("source_cidr", rule.get("dest_cidr", "")) else "0.0.0.0/0"
        full = {
            "id": f"acr-{number}",
            "direction": "out",
            "type": "WAN",
            "policy": "drop",
            "ip_protocol": "all",
            "source_cidr": everything,
            "dest_cidr": everything,
            "source_port_range": "-1/-1",
            "dest_port_range": "-1/-1",
            "priority": 10,
            **rule,
        }
        lines.append("[[acl.rule]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in full.items()]
    return "\n".join(lines) + "\n"
