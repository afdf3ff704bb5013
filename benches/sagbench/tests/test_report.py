import json
from xml.etree import ElementTree

from sagbench import report, stats, svg


def data(**more):
    fast = stats.summary([4e6, 4.1e6, 4.2e6])
    half = stats.summary([0.5, 0.5, 0.51])
    rows = {
        "bare redirect": {"rate_pps": fast, "sent": 100, "lost": 0, "slow_path": 0},
        "sag-vcpe": {"rate_pps": fast, "sent": 100, "lost": 0, "slow_path": 0, "of_limit": half, "of_kernel": stats.summary([7, 8])},
    }
    table = {"scenario": "chain-10kflows", "csit": "x", "about": "y", "base": "bare redirect", "rows": rows, "broken": []}
    return {
        "arguments": ["--quick"],
        "date": "today",
        "seconds": 1.0,
        "machine": {"cpu": "one", "mitigations": {"a": "b"}},
        "tables": {"chain-10kflows": table},
        "targets": [{"target": "t", "source": "#1", "limit": 6, "at_least": True, "measured": stats.summary([7, 8]), "verdict": "met"}],
        "points": {"flows": {"sag-vcpe": [{"x": 10, **fast}, {"x": 1_000_000, **fast}]}},
        "changes": {"rate_pps": 1, "flows": 2, "rows": {"restart": {"sent": 1, "lost": 0, "blocked_ms": 0.0, "overruns": 0, "renumbered": 0, "reordered": 0}}, "broken": []},
        "offered": {
            "sag-vcpe": {
                "throughput": {"0.0": 1e6, "0.005": 1.1e6},
                "source_can": 4e6,
                "curve": [(1e6, 0.0), (2e6, 0.5)],
                "latency": {"0.5": {"offered_pps": 5e5, "p50": 1000, "p90": 2000, "p99": 3000, "p99.9": 4000, "max": 5000}, "0.9": {"offered_pps": 0.0}},
            }
        },
        "missing": [("librte_acl", "not installed")],
        "notes": {"esp": "fast"},
    } | more


def test_all_files(tmp_path):
    report.write(tmp_path, data())
    text = (tmp_path / "report.md").read_text()
    for part in ("7.5", "**met**", "chain-10kflows", "restart", "not installed", "throughput-by-flows.svg", "CSIT"):
        assert part in text, part
    assert json.loads((tmp_path / "report.json").read_text())["targets"][0]["verdict"] == "met"
    for name in ("throughput-by-flows.svg", "loss-by-load.svg", "latency.svg"):
        ElementTree.parse(tmp_path / name)
        assert name in text


def test_nothing_measured_is_a_report_too(tmp_path):
    empty = {k: type(v)() for k, v in data().items() if k in ("tables", "targets", "points", "changes", "offered", "missing", "notes")}
    report.write(tmp_path, data(**empty))
    assert "Machine" in (tmp_path / "report.md").read_text()


def test_a_broken_measurement_stands_out(tmp_path):
    d = data()
    d["tables"]["chain-10kflows"]["broken"] = ["sag-vcpe: 5 lost"]
    report.write(tmp_path, d)
    assert "**Broken measurement:** sag-vcpe: 5 lost" in (tmp_path / "report.md").read_text()


def test_ticks():
    assert svg.nice_ticks(0, 4.4) == [0, 1, 2, 3, 4, 5]
    assert svg.nice_ticks(0, 0)[-1] >= 1
    assert [svg.label(v) for v in (0, 1500, 2e6, 0.5)] == ["0", "1.5k", "2M", "0.5"]


def test_plot_places():
    text = svg.plot("a < b", "x", "y", [("one & two", [(1, 1), (1000, 3)]), ("empty", []), ("gap", [(1, None)])], x_log=True)
    root = ElementTree.fromstring(text)
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    assert len(lines) == 1
    (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in lines[0].get("points").split())
    assert (x1, x2) == (svg.LEFT, svg.WIDTH - svg.RIGHT)
    assert y2 < y1
