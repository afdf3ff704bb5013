"""Last of all: nothing of the catalogue was left out."""

import fnmatch
import re
from pathlib import Path

import pytest

import catalogue
from conftest import NO_RADIO, OUT_OF_REACH, RECORDS, error_codes

DOC = Path(__file__).resolve().parents[2] / "docs" / "cloud-api.md"


def needs_full_run(request):
    if len({i.fspath for i in request.session.items}) < 7 or request.config.option.keyword:
        pytest.skip("only a part of the tests runs")


@pytest.mark.parametrize("kind", ["acs3", "v1"])
def test_every_operation_was_answered(kind, request):
    needs_full_run(request)
    answered = RECORDS[kind].answered
    assert [op for op in catalogue.OPERATIONS if not answered[op] and op not in NO_RADIO] == []


def test_every_documented_code_was_answered(request, server):
    """All but those that no client can provoke."""
    needs_full_run(request)
    provoked, documented = error_codes()
    left = documented - provoked - OUT_OF_REACH
    if not server.db[1].startswith("sqlite://"):
        # Quotas and ends of months are reached by writing to SQLite directly.
        left = {c for c in left if not re.search("Limit|Quota|Arrear|Exceeded", c)}
    assert not left
    assert not OUT_OF_REACH & provoked, "answered after all: take them off the list"


def test_the_document_gives_the_reason_for_every_other_code():
    section = DOC.read_text().split("## Documented codes that no client can provoke")[1]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    patterns = [p.replace("…", "*") for row in rows for p in re.findall("`([^`]+)`", row[1])]
    assert all(row[2].strip() for row in rows)
    assert [c for c in sorted(OUT_OF_REACH) if not any(fnmatch.fnmatchcase(c, p) for p in patterns)] == []
    assert [p for p in patterns if not fnmatch.filter(OUT_OF_REACH, p)] == []
    _, documented = error_codes()
    assert OUT_OF_REACH <= documented
