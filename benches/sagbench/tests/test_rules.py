import ipaddress
import shutil
import subprocess
import tomllib

import pytest

from sagbench import rules


def test_uniform_rules_differ():
    made = rules.uniform(100_000)
    assert len({(r["src"], r["dst"], tuple(r["dport"])) for r in made}) == len(made)
    for r in made[:: 997]:
        ipaddress.ip_network(r["src"])
        ipaddress.ip_network(r["dst"])
        assert 1 <= r["dport"][0] <= r["dport"][1] <= 65535


def test_uniform_rules_do_not_match_the_traffic():
    inside = ipaddress.ip_network("10.0.0.0/16")
    assert not any(ipaddress.ip_network(r["src"]).overlaps(inside) for r in rules.uniform(5000))


def test_toml_says_what_the_rules_say():
    made = [*rules.uniform(3), {"drop": False, "proto": None, "src": "0.0.0.0/0", "dst": "198.51.100.0/24", "sport": [0, 65535], "dport": [0, 65535]}]
    acl = tomllib.loads(rules.toml(made))["acl"][0]["rule"]
    assert [r["policy"] for r in acl] == ["drop", "drop", "drop", "accept"]
    assert acl[0]["dest_port_range"] == "1000/1010"
    assert acl[3]["ip_protocol"] == "all" and "dest_port_range" not in acl[3]
    tomllib.loads(rules.CAR)


def test_matches_of_nft():
    rule = {"drop": True, "proto": 6, "src": "0.0.0.0/0", "dst": "10.1.0.0/16", "sport": [0, 65535], "dport": [80, 80]}
    assert rules.nft_match(rule) == "ip daddr 10.1.0.0/16 tcp dport 80"
    rule |= {"proto": 47, "dport": [0, 65535]}
    assert rules.nft_match(rule) == "ip daddr 10.1.0.0/16 meta l4proto 47"


@pytest.mark.parametrize("table", [rules.nft_chain, rules.nft_set, rules.nft_marked])
def test_nft_takes_the_tables(table):
    text = table(rules.uniform(300)) + rules.nft_snat("203.0.113.2")
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    done = subprocess.run(["unshare", "--net", "nft", "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if "Operation not permitted" in done.stderr or "must be root" in done.stderr:
        pytest.skip("needs root")
    assert done.returncode == 0, done.stderr
