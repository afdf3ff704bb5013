"""What each operation does: the table of `docs/coverage.md`. `test_coverage.py` observes every line of it.

    python3 tests/sdk/levels.py           writes docs/coverage.md
    python3 tests/sdk/levels.py --check   says whether it is current
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import catalogue

PAGE = Path(__file__).resolve().parents[2] / "docs" / "coverage.md"

# Parameters of a call, made of what the calls before have kept.
Params = Callable[[Any], dict[str, Any]]

ACTS, MEASURED, STORED, WAITS, REFUSED = "acts", "measured", "stored", "waits", "refused"

# What a gateway cannot do yet, or never will: why an operation waits or is refused.
CONSOLE = "web console and remote access"
DPI = "application recognition"
LOGS = "flow logs"
APP = "access for client apps"
UPDATES = "software updates"
CEN = "enterprise networks (CEN)"
VBR = "leased lines to border routers (VBR)"
ACCELERATION = "application acceleration"
RADIO = "Wi-Fi and 4G"
POINTS = "access points"
MANAGEMENT = "address of the management port"
FEATURES = {CONSOLE, DPI, LOGS, APP, UPDATES, CEN, VBR, ACCELERATION, RADIO, POINTS, MANAGEMENT}


# What the SDK (2.1.2) has beyond the documents for documented operations, and what becomes of it.
# `test_sdk_fields.py` observes each line.
FIELDS = [
    ("CreateACL, DescribeACLs", "`AclType`", "`acl-hardware`, or `acl-software` for client apps: stored, shown, filters; a list of the"
     " latter does not go to a gateway"),
    ("DescribeACLAttribute", "`AclType` of each rule", "that of the list"),
    ("DescribeCloudConnectNetworks", "`Tag`", "no operation sets tags, so none match"),
    ("DescribeCloudConnectNetworks", "`Subnet`", "of AttachCcnInstanceToCen"),
    ("DescribeCloudConnectNetworks", "`AssociatedCenStatus`, `CenStatusErrorCode`, `CenStatusErrorMessage`, `NewAgw`,"
     " `ProcessingCenId`", "left out: known in the API of enterprise networks alone"),
    ("DescribeSagWan4G", "`Priority`, `TrafficState`", "never answered: there is no 4G"),
    ("ModifySmartAccessGateway, DescribeSmartAccessGateways, …Attribute", "`Position`", "stored and shown"),
    ("ModifySmartAccessGateway, DescribeSmartAccessGateways, …Attribute", "`EnableSoftwareConnectionAudit`",
     "false is accepted and shown, true is refused: nothing audits client apps"),
    ("DescribeSmartAccessGateways, …Attribute", "`IRIds`", "empty: there are no such policies"),
    ("DescribeSmartAccessGateways", "`AssociatedCcnName`", "filters, as Name does"),
    ("DescribeSmartAccessGateways", "`EnableAdvancedMonitor`", "as SetAdvancedMonitorState has set it"),
    ("DescribeSmartAccessGateways", "`Isp`", "left out: the carrier of a gateway is not known"),
    ("DescribeUserFlowStatistics", "`TotalLeaveBytes`", "left out: what counts against a plan is not known"),
    ("ModifyClientUserDNS", "`AppDNS`", "stored and shown; none clears"),
    ("ModifyClientUserDNS", "`RecoveredDNS`", "accepted and ignored, as the SDK says that it is not available yet"),
]


@dataclass
class Row:
    """One operation, or a part of what it takes."""

    op: str
    level: str
    params: Params
    # The operation whose answer shows the change; `document`: the device document.
    seen: str = ""
    seen_params: Params | None = None
    # A text that the answer has.
    shows: Callable[[Any], str] | None = None
    # What the device reports differently.
    report: dict[str, Any] | None = None
    # Name of what is kept, and where the answer has it.
    keep: tuple[str, str] | None = None
    # The command that the agent carries out.
    command: str = ""
    feature: str = ""
    # Which part of the operation it is.
    part: str = ""

    def text(self) -> str:
        """How it is seen."""
        if self.level == ACTS:
            return f"the agent carries out `{self.command}`" if self.command else "the agent does something else"
        if self.level == MEASURED:
            return f"the answer follows the report: {', '.join(f'`{k}`' for k in self.report or {})}"
        if self.level == REFUSED:
            return "`FeatureNotSupport`"
        if self.seen == "document":
            return "the device document has it; the agent does the same as before"
        if not self.seen and not self.shows:
            return "there is never anything to clear; the agent does the same as before"
        if self.seen == "database":
            return "the stored object has it; the agent does the same as before"
        if self.seen:
            return f"{self.seen} shows it; the agent does the same as before"
        return "the answer has what was stored"


def gw(**more: Any) -> Params:
    return lambda w: dict(SmartAGId=w.sag, **kept(w, more))


def dev(**more: Any) -> Params:
    return lambda w: dict(SmartAGId=w.sag, SmartAGSn=w.sn, **kept(w, more))


def serial(**more: Any) -> Params:
    return lambda w: dict(SmartAGId=w.sag, SerialNumber=w.sn, **kept(w, more))


def ins(**more: Any) -> Params:
    return lambda w: dict(SagInsId=w.sag, SagSn=w.sn, **kept(w, more))


def sag(**more: Any) -> Params:
    return lambda w: dict(SagId=w.sag, **kept(w, more))


def task(**more: Any) -> Params:
    return lambda w: dict(SagId=w.sag, Sn=w.sn, **kept(w, more))


def app(**more: Any) -> Params:
    return lambda w: dict(SmartAGId=w.app, **kept(w, more))


def just(**more: Any) -> Params:
    return lambda w: kept(w, more)


def kept(w: Any, params: dict[str, Any]) -> dict[str, Any]:
    """`$name` is what was kept under that name."""
    def value(v: Any) -> Any:
        if isinstance(v, str) and v.startswith("$"):
            return getattr(w, v[1:])
        if isinstance(v, dict):
            return kept(w, v)
        return [value(i) for i in v] if isinstance(v, list) else v

    return {k: value(v) for k, v in params.items()}


def acts(op: str, params: Params, **more: Any) -> Row:
    return Row(op, ACTS, params, **more)


def measured(op: str, params: Params, **report: Any) -> Row:
    return Row(op, MEASURED, params, report=report)


def stored(op: str, params: Params, seen: str, seen_params: Params, **more: Any) -> Row:
    return Row(op, STORED, params, seen, seen_params, **more)


def shows(op: str, params: Params, text: str, **more: Any) -> Row:
    what = lambda w: getattr(w, text[1:]) if text.startswith("$") else text
    return Row(op, STORED, params, shows=what, **more)


def waits(feature: str, row: Row) -> Row:
    row.level, row.feature = WAITS, feature
    return row


def refused(feature: str, op: str, params: Params, part: str = "") -> Row:
    return Row(op, REFUSED, params, feature=feature, part=part)


def page(rows: list[Row]) -> str:
    """The page for people."""
    by_op: dict[str, list[Row]] = {}
    for row in rows:
        by_op.setdefault(row.op, []).append(row)
    counts = {level: sum(1 for of in by_op.values() if of[0].level == level)
              for level in (ACTS, MEASURED, STORED, WAITS, REFUSED)}
    out = [
        "# What each operation does",
        "",
        "<!-- Made by tests/sdk/levels.py; tests/sdk/test_coverage.py observes every line. -->",
        "",
        f"All {len(by_op)} operations of the catalogue, each with what a test sees of it: against a `sag-cloud` with a device that",
        "reports what `sag-agent` can do, and with `sag-agent preview`, which says what the agent does with a device document.",
        "",
        "| level | what it means | operations |",
        "|---|---|---|",
        f"| acts | a gateway, or its agent, does something else after the call | {counts[ACTS]} |",
        f"| measured | the answer is what a device has reported | {counts[MEASURED]} |",
        f"| stored | storing it, or showing what is stored, is all that the operation is for | {counts[STORED]} |",
        f"| waits | stored and shown; a gateway will act on it with the feature that is named | {counts[WAITS]} |",
        f"| refused | `FeatureNotSupport`, once the device has reported what it can do | {counts[REFUSED]} |",
        "",
        "An operation that does several things is counted by the first one.",
        "",
        "| operation | level | what is seen | feature |",
        "|---|---|---|---|",
    ]
    for op in catalogue.OPERATIONS:
        for row in by_op.get(op, []):
            name = f"{op} ({row.part})" if row.part else op
            out.append(f"| {name} | {row.level} | {row.text()} | {row.feature} |")
    out += [
        "",
        "## What the SDK has beyond the documents",
        "",
        "Parameters and fields of documented operations that only the SDK (2.1.2) has; `tests/sdk/test_sdk_fields.py` observes them.",
        "",
        "| operation | parameter or field | what becomes of it |",
        "|---|---|---|",
        *(f"| {op} | {names} | {what} |" for op, names, what in FIELDS),
    ]
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    from level_rows import ROWS

    text = page(ROWS)
    if sys.argv[1:] == ["--check"]:
        sys.exit(0 if PAGE.read_text() == text else f"{PAGE}: not current; python3 tests/sdk/levels.py")
    PAGE.write_text(text)
