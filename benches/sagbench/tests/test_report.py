import json
from xml.etree import ElementTree

import pytest

from sagbench import report, rows, stats, svg


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
        "figures": {"idle": {"scenario": "small-box", "about": "z", "columns": ["MB", "why"], "rows": {"daemon": [half, "tables"]}, "broken": []}},
        "targets": [{"target": "t", "scenario": "headline", "unit": "ns", "source": "#1", "limit": 6, "at_least": True, "measured": stats.summary([7, 8]), "verdict": "met"}],
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
    for part in ("| daemon | 0.500 (0.500 to 0.505) | tables |", "| t | ≥ 6 ns | 7.50 (7.25 to 7.75) ns | 2 | **met** | headline | #1 |", "1 of 1 are met", "chain-10kflows", "restart", "not installed", "throughput-by-flows.svg", "CSIT"):
        assert part in text, part
    assert json.loads((tmp_path / "report.json").read_text())["targets"][0]["verdict"] == "met"
    order = [text.index(part) for part in ("# sag-vcpe", "## Machine", "## Method", "## What is not comparable", "## Targets", "## Results", "## Plots")]
    assert order == sorted(order)
    for name in ("throughput-by-flows.svg", "loss-by-load.svg", "latency.svg"):
        ElementTree.parse(tmp_path / name)
        assert name in text


def test_nothing_measured_is_a_report_too(tmp_path):
    empty = {k: type(v)() for k, v in data().items() if k in ("tables", "figures", "targets", "points", "changes", "offered", "missing", "notes")}
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
    text = svg.plot("a < b", "x", "y", [("one & two", [(1, 1, 0.5, 1.5), (1000, 3)]), ("empty", []), ("gap", [(1, None)])], x_log=True)
    root = ElementTree.fromstring(text)
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    assert len(lines) == 1
    (x1, y1), (x2, y2) = (map(float, p.split(",")) for p in lines[0].get("points").split())
    assert x1 == svg.LEFT
    # The legend has room for its longest name.
    legend = next(e for e in root.iter() if e.text == "one & two")
    assert x2 < float(legend.get("x")) < svg.WIDTH - svg.LETTER * len("one & two")
    assert y2 < y1


class Rows:
    """What rows.py needs of a bench."""

    scenario = "cores"

    def __init__(self):
        self.targets, self.figures, self.warnings = [], {}, []
        self.warn = self.warnings.append


def test_a_row_knows_its_scenario_and_verdict():
    bench = Rows()
    rows.target(bench, "two cores", stats.summary([1.8, 1.9, 1.9]), 1.85, source="#21", unit="times")
    rows.target(bench, "nothing", rows.samples([]), 1)
    rows.target(bench, "idle", stats.summary([0.2]), 0.5, at_least=False)
    assert [(r["scenario"], r["verdict"]) for r in bench.targets] == [("cores", "met"), ("cores", "not measured"), ("cores", "met")]


def test_a_table_of_figures_is_whole():
    bench = Rows()
    rows.figures(bench, "t", "about", ["a", "b"], {"x": [1, None]}, broken=["it lost frames"])
    assert bench.warnings and bench.figures["t"]["rows"] == {"x": [1, None]}
    with pytest.raises(ValueError):
        rows.figures(bench, "t", "about", ["a", "b"], {"x": [1]})


def test_figures_have_three_digits():
    assert [report.figure(v) for v in (0, 0.8484, 1.9046, 2.346, 52.31, 1234.5, 1_000_000)] == ["0", "0.848", "1.905", "2.35", "52.3", "1,234", "1,000,000"]
