"""The report: Markdown, JSON, plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import page, svg


def mpps(rate: float) -> str:
    return f"{rate / 1e6:.3f}"


def figure(value: float) -> str:
    """Three digits that count, or the whole number."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == 0 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 2 else f"{value:.3f}"


def spread(s: dict[str, Any], form: str | None = None) -> str:
    """Median and quartiles."""
    if form is None:
        return f"{figure(s['median'])} ({figure(s['q25'])} to {figure(s['q75'])})"
    return f"{form.format(s['median'])} ({form.format(s['q25'])} to {form.format(s['q75'])})"


def sign(row: dict[str, Any]) -> str:
    return "≥" if row["at_least"] else "≤"


def targets(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return []
    met = sum(row["verdict"] == "met" for row in rows)
    lines = [
        "## Targets",
        "",
        f"{met} of {len(rows)} are met. Each row is repeated by `scripts/bench.sh --only SCENARIO`; *n* is the number of rounds.",
        "",
        "| target | limit | median (quartiles) | n | verdict | scenario | issue |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        m = row["measured"]
        unit = f" {row['unit']}" if row["unit"] else ""
        value, n = ("not measured", "") if m is None else (spread(m) + unit, m["n"])
        cells = [row["target"], f"{sign(row)} {row['limit']:,}{unit}", value, n, f"**{row['verdict']}**", row["scenario"], row["source"]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return [*lines, "", "Further targets are held by tests: docs/benchmarks.md, *Targets that tests check*.", ""]


def figures(title: str, t: dict[str, Any]) -> list[str]:
    """A table of rows.figures."""

    def cell(value: Any) -> str:
        if isinstance(value, dict):
            return spread(value) if value["n"] > 1 else figure(value["median"])
        return "" if value is None else value if isinstance(value, str) else figure(value)

    lines = [f"### {title}", "", t["about"], "", "| " + " | ".join(["", *t["columns"]]) + " |", "|---" * (len(t["columns"]) + 1) + "|"]
    lines += ["| " + " | ".join([name, *map(cell, cells)]) + " |" for name, cells in t["rows"].items()]
    lines += ["", *(f"**Broken measurement:** {b}" for b in t["broken"])]
    return [*lines, ""] if t["broken"] else lines


def headline(tables: dict[str, Any]) -> list[Any]:
    """One line for each number of flows."""
    lines = []
    for name, table in tables.items():
        sag = table["rows"].get("sag-vcpe", {})
        if "of_kernel" in sag:
            least = [f"{name} {spread(row['of_limit'], '{:.2f}')}" for name, row in table["rows"].items() if "line" in name]
            lines.append(
                f"**{name}: {spread(sag['of_kernel'], '{:.1f}')} × Linux with the same policy in nftables, "
                f"{spread(sag['of_limit'], '{:.2f}')} of the bare redirect, {sag['lost']} of {sag['sent']} frames lost.**"
                + (f" What memory alone costs here, of the bare redirect: {'; '.join(least)}." if least else "")
            )
    return [*(line for pair in zip(lines, [""] * len(lines)) for line in pair)]


def table(t: dict[str, Any]) -> list[str]:
    lines = [f"### {t['scenario']}", ""]
    about = " ".join(x for x in (t["about"], f"CSIT: `{t['csit']}`." if t["csit"] else "") if x)
    base = t["base"]
    head = ["", "Mpps: median (quartiles)", "ns a frame", f"of the {base}" if base else "", "sent", "lost", "not by XDP alone"]
    lines += [about, "", "| " + " | ".join(head) + " |", "|---|---|---|---|---|---|---|"]
    for name, row in t["rows"].items():
        r = row["rate_pps"]
        share = row.get("of_limit") or row.get("of_one")
        rate = {k: r[k] / 1e6 for k in ("median", "q25", "q75")}
        cells = [
            name,
            spread(rate, "{:.3f}"),
            f"{1e9 / r['median']:.0f}" if r["median"] else "",
            "; ".join(
                ([spread(share, "{:.3f}") + ("" if row.get("of_limit") else " × one core")] if share else [])
                + ([f"{spread(row['of_plain'], '{:.3f}')} of no tunnel"] if "of_plain" in row else [])
                + ([f"{spread(row['of_kernel'], '{:.1f}')} × Linux"] if "of_kernel" in row else [])
            ),
            "" if row["sent"] is None else str(row["sent"]),
            str(row["lost"]),
            "" if row["slow_path"] is None else str(row["slow_path"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [""] + [f"**Broken measurement:** {b}" for b in t["broken"]]
    return [*lines, ""] if t["broken"] else lines


def changes(c: dict[str, Any]) -> list[str]:
    if not c:
        return []
    lines = [
        "### Changes under load",
        "",
        f"{c['flows']} established flows, {c['rate_pps']} frames a second. Blocked: frames lost by the rate. "
        "Overran: found a wire's ring of 256 frames full, because the machine did not let the softirq behind it run; not among the lost.",
        "",
        "| change | sent | lost | blocked, ms | overran | source ports changed | reordered |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, row in c["rows"].items():
        lines.append(f"| {kind} | {row['sent']} | {row['lost']} | {row['blocked_ms']:.2f} | {row['overruns']} | {row['renumbered']} | {row['reordered']} |")
    return [*lines, "", *(f"**Broken measurement:** {b}" for b in c["broken"]), ""]


def offered(o: dict[str, Any]) -> list[str]:
    if not o:
        return []
    lines = [
        "### Offered load (RFC 2544)",
        "",
        "Whole chain, 10,000 flows, 64 B. Source on one core; gateway and sink on the other, in a NAPI thread.",
        "",
        "| | Mpps without loss | Mpps with 0.5 % loss | source can, Mpps |",
        "|---|---|---|---|",
    ]
    for name, row in o.items():
        t = row["throughput"]
        lines.append(f"| {name} | {mpps(t['0.0'])} | {mpps(t['0.005'])} | {mpps(row['source_can'])} |")
    lines += ["", "| latency, µs | load | p50 | p90 | p99 | p99.9 (quartiles of the rounds) | max | n |", "|---|---|---|---|---|---|---|---|"]
    for name, row in o.items():
        for share, l in row["latency"].items():
            cells = [f"{l[k] / 1e3:.1f}" if k in l else "" for k in ("p50", "p90", "p99", "p99.9", "max")]
            rounds = l.get("of_p99.9")
            if rounds:
                cells[3] += f" ({rounds['q25'] / 1e3:.1f} to {rounds['q75'] / 1e3:.1f})"
            lines.append(f"| {name} | {float(share):.0%}, {mpps(l['offered_pps'])} Mpps | " + " | ".join(cells) + f" | {rounds['n'] if rounds else 0} |")
    return [*lines, ""]


def plots(data: dict[str, Any]) -> dict[str, Any]:
    """File name and SVG."""
    out = {}
    titles = {
        "flows": ("Throughput by number of flows", "flows", True),
        "rules": ("Throughput by number of ACL rules, 10,000 flows", "rules", True),
        "size": ("Throughput by frame size, 10,000 flows", "bytes with FCS", False),
    }
    for key, (title, x, log) in titles.items():
        if data["points"].get(key):
            series = [(n, sorted((p["x"], p["median"] / 1e6, p["q25"] / 1e6, p["q75"] / 1e6) for p in pts)) for n, pts in data["points"][key].items()]
            out[f"throughput-by-{key}.svg"] = svg.plot(title, x, "Mpps", series, x_log=log, note="medians and quartiles of the rounds; source, gateway and sink on one core")
    if data["offered"]:
        curves = [(n, sorted((rate / 1e6, loss * 100) for rate, loss in row["curve"])) for n, row in data["offered"].items()]
        out["loss-by-load.svg"] = svg.plot("Loss by offered load", "Mpps offered", "% lost", curves, note="64 B, 10,000 flows, whole chain; gateway and sink on one core, source on another")
        names = ["p50", "p90", "p99", "p99.9", "max"]
        series = [
            (n, [(i, row["latency"]["0.5"][p] / 1e3) for i, p in enumerate(names) if p in row["latency"]["0.5"]])
            for n, row in data["offered"].items()
        ]
        out["latency.svg"] = svg.plot("Latency at half the throughput", "percentile", "µs", series, y_log=True, x_names=names, note="each at half of its own throughput; medians of the rounds")
    return out


def markdown(data: dict[str, Any], pictures: list[str]) -> str:
    lines = [
        *page.front(data),
        *headline(data["tables"]),
        *targets(data["targets"]),
        "## Results",
        "",
    ]
    for t in data["tables"].values():
        lines += table(t)
    for title, t in data["figures"].items():
        lines += figures(title, t)
    lines += changes(data["changes"])
    lines += offered(data["offered"])
    if pictures:
        lines += ["## Plots", "", *(f"![{name}]({name})" for name in pictures), ""]
    if data["missing"]:
        lines += ["## Not measured", "", "| | why |", "|---|---|", *(f"| {what} | {why} |" for what, why in data["missing"]), ""]
    for name, text in data["notes"].items():
        lines += [f"## {name}", "", "```", text.strip(), "```", ""]
    return "\n".join(lines)


def write(directory: Path, data: dict[str, Any]) -> None:
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    pictures = plots(data)
    for name, text in pictures.items():
        (directory / name).write_text(text, encoding="utf-8")
    (directory / "report.md").write_text(markdown(data, list(pictures)), encoding="utf-8")
    (directory / "report.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
