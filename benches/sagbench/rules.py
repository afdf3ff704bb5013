"""The same policies as the gateway's TOML and as nftables."""

from __future__ import annotations

import json
from typing import Any


def uniform(count: int) -> list[Any]:
    """Rules of one shape that do not overlap: what an interval set can hold as well as a chain."""
    rules = []
    for n in range(count):
        low = 1000 + n % 997 * 60
        rules.append(
            {
                "drop": True,
                "proto": 17,
                "src": f"172.{16 + n // 25600 % 16}.{n % 256}.0/24",
                "dst": f"10.{100 + n // 256 % 100}.0.0/16",
                "sport": [0, 65535],
                "dport": [low, low + 10],
            }
        )
    return rules


def toml(rules: list[dict[str, Any]]) -> str:
    """As an [[acl]]."""
    lines = ["", "[[acl]]", 'id = "bench"']
    for n, rule in enumerate(rules):
        lines += [
            "[[acl.rule]]",
            f'id = "acr-{n}"',
            'direction = "out"',
            'type = "WAN"',
            f'policy = "{"drop" if rule["drop"] else "accept"}"',
            f'ip_protocol = "{"all" if rule["proto"] is None else rule["proto"]}"',
            f'source_cidr = "{rule["src"]}"',
            f'dest_cidr = "{rule["dst"]}"',
            "priority = 10",
        ]
        lines += [
            f"{key} = {json.dumps(port_range(rule[ports]))}"
            for key, ports in (("source_port_range", "sport"), ("dest_port_range", "dport"))
            if rule[ports] != [0, 65535]
        ]
    return "\n".join(lines) + "\n"


def port_range(ports: list[int]) -> str:
    """The API has no port 0."""
    return f"{max(1, ports[0])}/{ports[1]}"


PORTS_OF = {6: "tcp", 17: "udp", 132: "sctp", 136: "udplite"}


def nft_match(rule: dict[str, Any]) -> str:
    """The conditions of a rule."""
    words = []
    family = "ip6" if ":" in rule["src"] else "ip"
    for key, field in (("src", "saddr"), ("dst", "daddr")):
        if not rule[key].endswith("/0"):
            words.append(f"{family} {field} {rule[key]}")
    ports = [(f, rule[k]) for f, k in (("sport", "sport"), ("dport", "dport")) if rule[k] != [0, 65535]]
    if ports:
        proto = PORTS_OF.get(rule["proto"], "th")
        words += [f"{proto} {f} {p[0]}-{p[1]}" if p[0] != p[1] else f"{proto} {f} {p[0]}" for f, p in ports]
    elif rule["proto"] is not None:
        words.append(f"meta l4proto {rule['proto']}")
    return " ".join(words)


def nft_chain(rules: list[dict[str, Any]]) -> str:
    """One after the other."""
    return chain(nft_chain_body(rules))


def nft_set(rules: list[dict[str, Any]]) -> str:
    """Uniform rules as one interval set."""
    elements = ", ".join(f"{r['src']} . {r['dst']} . {r['dport'][0]}-{r['dport'][1]}" for r in rules)
    return f"""table ip bench {{
    set refused {{
        type ipv4_addr . ipv4_addr . inet_service
        flags interval
        elements = {{ {elements} }}
    }}
    chain forward {{
        type filter hook forward priority filter
        ip saddr . ip daddr . udp dport @refused drop
    }}
}}
"""


def nft_marked(rules: list[dict[str, Any]]) -> str:
    """As nft_set, but connections that have passed it are marked, and pass by the mark.

    (`ct state established` would not do: a connection without replies never becomes that.)
    """
    return nft_set(rules).replace(
        "        ip saddr . ip", "        ct mark 1 accept\n        ip saddr . ip"
    ).replace("@refused drop\n", "@refused drop\n        ct mark set 1\n")


def nft_chain_body(rules: list[dict[str, Any]]) -> str:
    return "\n".join(f"        {nft_match(r)} {'drop' if r['drop'] else 'accept'}" for r in rules)


def chain(body: str) -> str:
    return f"table inet bench {{\n    chain forward {{\n        type filter hook forward priority filter\n{body}\n    }}\n}}\n"


def nft_snat(address: str) -> str:
    """Everything that leaves by the WAN."""
    return f"""table ip benchnat {{
    chain post {{
        type nat hook postrouting priority srcnat
        oifname "wan" snat to {address}
    }}
}}
"""


CAR = """
[[qos]]
id = "bench"
[[qos.car]]
id = "car"
priority = 1
limit_type = "Absolute"
min_bandwidth_abs = 0
max_bandwidth_abs = 1000000
[[qos.policy]]
id = "all4"
priority = 1
ip_protocol = "all"
source_cidr = "0.0.0.0/0"
dest_cidr = "0.0.0.0/0"
[[qos.policy]]
id = "all6"
priority = 1
ip_protocol = "all"
source_cidr = "::/0"
dest_cidr = "::/0"
"""
