"""Fixtures: one lab a module, the gateway in it, and the checks that follow every test.

    /usr/bin/python3 -m pytest tests/e2e [--forwarder kernel] [--quick]

Every process of pytest has labs of its own, so several may run at a time (pytest-xdist); the tests that measure rates or
load the machine are marked `alone`:

    /usr/bin/python3 -m pytest tests/e2e -n 3 --dist loadfile -m "not alone"
    /usr/bin/python3 -m pytest tests/e2e -m alone
"""

import contextlib
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.flood import Attack
from harness.lab import Gateway, Lab
from harness.nat import Peers, hide_the_inside
from harness.net import CommandError, run
from harness.port_counters import PacketAccounting
from harness.routers import Daemons
from harness.tunnels import Far
from harness.wire import Sender, Sniffer


def pytest_addoption(parser):
    parser.addoption("--forwarder", choices=("sag", "kernel"), default="sag", help="what forwards in the lab")
    parser.addoption("--quick", action="store_true", help="leave out what is marked slow")
    parser.addoption(
        "--attack-rate",
        type=int,
        default=None,
        help="packets a second of floods and scans, on tables of the default size (default: 4000, on small ones)",
    )
    parser.addoption("--seed", type=int, default=None, help="seed of the random tests (default: a new one, printed)")


def pytest_configure(config):
    for line in (
        "sag: needs the product; skipped with --forwarder kernel",
        "slow: left out by --quick",
        "alone: measures rates or loads the machine; not beside other tests",
        "bad_checksums: the test itself puts wrong checksums on the wire",
        "no_accounting: the test leaves the gateway in a state where its counters cannot be read",
    ):
        config.addinivalue_line("markers", line)


# Files that take longest, in seconds from more to less: where several run at a time, they begin first.
LONGEST = ["test_http_limits.py", "test_tunnels.py", "test_floods.py", "test_esp.py", "test_spoofing.py", "test_rekey.py",
           "test_esp_numbers.py", "test_oracle_nft.py", "test_agent_chaos.py", "test_keepalive.py"]


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    kernel = config.getoption("--forwarder") == "kernel"
    quick = config.getoption("--quick")
    for item in items:
        if kernel and item.get_closest_marker("sag"):
            item.add_marker(pytest.mark.skip(reason="needs the product, not the kernel's forwarding"))
        if quick and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow, and --quick was given"))


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("the end-to-end tests build network namespaces: run them as root", returncode=2)
    if not session.config.getoption("collectonly"):
        remove_stale_labs()


def remove_stale_labs():
    """Labs of runs that were killed; their prefix has the number of the process."""
    netns = Path("/run/netns")
    names = [p.name for p in netns.iterdir()] if netns.is_dir() else []
    for prefix, pid in {m.groups() for name in names if (m := re.match(r"(t(\d+)-\w+-)", name))}:
        if not Path("/proc", pid).exists():
            Lab(prefix).down()
            remove_what_is_left(prefix)


def remove_what_is_left(prefix):
    """Namespaces, folders and pins that tests made beside the lab's own."""
    for ns in Path("/run/netns").glob(f"{prefix}*"):
        for pid in run(["ip", "netns", "pids", ns.name], check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run(["ip", "netns", "delete", ns.name], check=False)
    for folder in (*Path("/run").glob(f"{prefix}*"), *Path("/sys/fs/bpf").glob(f"{prefix}*")):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def forwarder(request):
    return request.config.getoption("--forwarder")


@pytest.fixture(scope="session")
def attack(request):
    """How hard attackers try."""
    return Attack.of(request.config.getoption("--attack-rate"))


@pytest.fixture(scope="session")
def seed(request):
    given = request.config.getoption("--seed")
    return given if given is not None else int.from_bytes(os.urandom(4), "big")


_labs = 0


def _new_lab():
    global _labs
    _labs += 1
    return Lab(f"t{os.getpid()}-{_labs}-")


@pytest.fixture(scope="module")
def lab():
    """A fresh lab for the module, gone afterwards."""
    it = _new_lab()
    it.up()
    yield it
    it.down()


@pytest.fixture(scope="module")
def far(lab):
    """The far end of tunnels: another gateway behind the lab's provider, with a branch of its own."""
    it = Far(lab)
    yield it
    it.close()


@pytest.fixture
def daemons(lab):
    """Routing daemons that end with the test."""
    folder = lab.run_dir / "daemons"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    it = Daemons(folder)
    yield it
    it.close()


@pytest.fixture(scope="module")
def second_lab():
    """Another one beside it, for comparisons with the kernel."""
    it = _new_lab()
    it.up()
    yield it
    it.down()


@pytest.fixture(scope="module")
def gateway(lab, forwarder):
    """The gateway of the module's lab, not started yet."""
    it = Gateway(lab, forwarder)
    yield it
    if it.running is not None:
        it.stop()


@pytest.fixture(scope="module")
def accounting(gateway):
    return PacketAccounting(gateway)


@pytest.fixture
def gw(gateway, accounting):
    """The gateway, running with the lab's configuration."""
    return use(gateway, accounting)


@pytest.fixture
def gw_with(gateway, accounting):
    """A function: the gateway, running with the configuration given."""
    return lambda config: use(gateway, accounting, config)


@pytest.fixture
def gw_changed(gateway, accounting):
    """A function: the gateway with the configuration given, by a reload if it runs already."""

    def change(config):
        if gateway.running is None:
            return use(gateway, accounting, config)
        if gateway.running != config:
            gateway.reload(config)
        return gateway

    return change


@pytest.fixture
def gw_cleared(gw_changed):
    """A function: the same, and without the sessions from before. Counters are not reset."""

    def change(config):
        gateway = gw_changed(config)
        gateway.ctl("sessions", "flush", "--all")
        return gateway

    return change


def use(gateway, accounting, config=None):
    was = gateway.running
    gateway.ensure(config)
    if gateway.is_sag and (was != gateway.running or accounting.baseline is None):
        accounting.open()
    return gateway


# Fixtures by which a test starts a gateway.
STARTERS = {"gw", "gw_with", "gw_changed", "gw_cleared"}


@pytest.fixture(autouse=True)
def fresh_at_another_attempt(request):
    """Another attempt at a test begins with gateways that have no sessions, keys or counters of the one before, if it
    starts them itself: what a module has started goes on."""
    if getattr(request.node, "execution_count", 1) > 1 and STARTERS & set(request.fixturenames):
        for name in ("gateway", "far"):
            if name in request.fixturenames:
                request.getfixturevalue(name).stop()


@pytest.fixture(autouse=True)
def checks_after_test(request):
    """After every test: every packet is accounted for, and no host saw a wrong checksum."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab = request.getfixturevalue("lab")
    before = {ns.name: ns.checksum_errors() for ns in lab.hosts}
    yield
    if not request.node.get_closest_marker("bad_checksums"):
        after = {ns.name: ns.checksum_errors() for ns in lab.hosts}
        assert after == before, "hosts received wrong checksums"
    if "gateway" not in request.fixturenames:
        return
    gateway = request.getfixturevalue("gateway")
    if gateway.is_sag and gateway.running is not None and not request.node.get_closest_marker("no_accounting"):
        problems = request.getfixturevalue("accounting").errors()
        assert not problems, "packets are not accounted for:\n  " + "\n  ".join(problems)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows the end of the gateway's log, and what was dropped since it started."""
    outcome = yield
    report = outcome.get_result()
    gateway = getattr(item, "funcargs", {}).get("gateway")
    if report.failed and gateway is not None and gateway.is_sag:
        report.sections.append(("gateway log", gateway.tail()))
        with contextlib.suppress(CommandError):
            dropped = [f"{port}/{why}: {n}" for (port, why), n in gateway.drops().items() if n]
            report.sections.append(("drops by port and reason", "\n".join(dropped)))
    far = getattr(item, "funcargs", {}).get("far")
    if report.failed and hasattr(far, "tail"):
        report.sections.append(("far gateway's log", far.tail()))


@pytest.fixture
def wire(lab):
    """Makes senders and sniffers, by namespace and device, and closes them."""
    made = []

    class Wire:
        @staticmethod
        def sender(ns, dev):
            made.append(Sender(ns, dev))
            return made[-1]

        @staticmethod
        def sniffer(ns, dev):
            made.append(Sniffer(ns, dev))
            return made[-1]

    yield Wire
    for one in made:
        one.close()


@pytest.fixture
def peers():
    """Makes sockets in namespaces, and closes them."""
    made = Peers()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hidden(lab):
    """The lab without routes from outside to the branch's IPv4 addresses."""
    hide_the_inside(lab)
    return lab


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def family(request):
    return request.param
