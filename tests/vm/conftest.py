"""Fixtures of the tests in virtual machines: one guest for each kernel.

    scripts/test-vm.sh [--kernel 6.1] [-- PYTEST_ARGUMENT…]

`--kernel` may be given several times. What is seen of each goes into target/vm/report.md.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "sdk")]

from bed import images
from bed.site import ECHO_PORT, INSIDE_PORT, Site
from harness.flood import Server
from harness.net import run


def pytest_addoption(parser):
    parser.addoption("--kernel", action="append", choices=list(images.KERNELS), help="default: all of them")


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("guests need taps and network namespaces: run as root", returncode=2)
    if session.config.getoption("collectonly"):
        return
    netns = Path("/run/netns")
    for name in [p.name for p in netns.iterdir()] if netns.is_dir() else []:
        # Of runs that were killed; the prefix has the number of the process.
        if (m := re.match(r"vm(\d+)-", name)) and not Path("/proc", m[1]).exists():
            run(["ip", "netns", "delete", name], check=False)


def pytest_generate_tests(metafunc):
    if "kernel" in metafunc.fixturenames:
        names = metafunc.config.getoption("--kernel") or list(images.KERNELS)
        metafunc.parametrize("kernel", names, indirect=True, scope="session", ids=[f"linux-{n}" for n in names])


@pytest.fixture(scope="session")
def kernel(request):
    """A kernel, fetched and unpacked."""
    try:
        images.root_image()
        return images.kernel(request.param)
    except images.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def site(kernel):
    """The networks around a guest."""
    it = Site(kernel.name.replace(".", ""))
    yield it
    it.close()


@pytest.fixture(scope="session")
def guest(kernel, site):
    """A guest, booted."""
    try:
        it = site.boot(kernel, spare="e1000e")
    except images.Unavailable as missing:
        pytest.skip(str(missing))
    REPORT.setdefault(kernel.name, {})["boot"] = f"{it.boot_seconds:.0f} s ({it.accel})"
    yield it
    it.stop()


@pytest.fixture(scope="session")
def servers(site, guest):
    """Who answers: on the Internet and inside."""
    made = [Server(site.wan, ECHO_PORT), Server(site.lan, INSIDE_PORT)]
    yield made
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def gateway(guest, kernel, servers):
    """The guest, forwarding."""
    if kernel.version < images.OLDEST:
        pytest.skip("older than the gateway supports")
    guest.wait("systemctl is-active sag-vcpe", 240)
    guest.wait("sagctl --json ports | grep -q xdp_mode.*native", 60)
    return guest


# What was seen, by kernel.
REPORT: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="session")
def seen(kernel):
    """Where a test notes what it has seen."""
    return REPORT.setdefault(kernel.name, {"release": kernel.release})


def pytest_sessionfinish(session):
    if not REPORT:
        return
    columns = list(dict.fromkeys(key for row in REPORT.values() for key in row))
    lines = ["| kernel | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(row.get(c, "") for c in columns) + " |" for name, row in REPORT.items()]
    images.CACHE.mkdir(parents=True, exist_ok=True)
    (images.CACHE / "report.md").write_text("\n".join(lines) + "\n")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the units have said."""
    outcome = yield
    report = outcome.get_result()
    guest = getattr(item, "funcargs", {}).get("guest")
    if report.failed and guest is not None:
        for unit in ("sag-vcpe", "sag-agent", "sag-cloud"):
            try:
                report.sections.append((f"journal of {unit}", guest.journal(unit)))
            except Exception as error:
                report.sections.append((f"journal of {unit}", f"cannot be read: {error}"))
                break
