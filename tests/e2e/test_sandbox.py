"""The systemd units: they are right, and what they grant is enough and no more."""

import re
import shutil
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, api_names, cloud_of, pings, within
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.lan import leased
from harness.net import run
from harness.sandbox import UNITS, USER, Unit, mask, own, privileges, reachable
from harness.traffic import http_server

NAMES = sorted(path.stem for path in UNITS.glob("*.service"))


def analyze(*arguments):
    program = shutil.which("systemd-analyze")
    if not program:
        pytest.skip("systemd-analyze is not installed")
    return run([program, *arguments], check=False)


@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_the_unit(name, tmp_path):
    text = (UNITS / f"{name}.service").read_text()
    # Programs and users are there only where the package is installed.
    here = re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", text, flags=re.M)
    here = re.sub(r"^(User|Group)=sag$", r"\1=root", here, flags=re.M)
    for other in NAMES:
        (tmp_path / f"{other}.service").write_text(here if other == name else "[Service]\nExecStart=/bin/true\n")
    done = analyze("verify", "--man=no", tmp_path / f"{name}.service")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stdout + done.stderr


# In tenths, as `systemd-analyze security` counts: what a gateway is allowed for the packets' sake is most of its.
# FRR begins as root with capabilities of its own, so its service has the most.
EXPOSURE = {"sag-agent": 25, "sag-cloud": 15, "sag-routing": 50, "sag-vcpe": 34}


@pytest.mark.parametrize("name", NAMES)
def test_exposure(name):
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE[name]}", UNITS / f"{name}.service")
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot check files (--offline)")
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@pytest.fixture(scope="module")
def folder(lab):
    """Where the units' users have their directories; pytest's own are closed to them."""
    for tool in ("setpriv", "unshare"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed (util-linux)")
    it = lab.run_dir
    it.chmod(0o755)
    (it / "state").mkdir(exist_ok=True)
    own(it, it / "sag")
    return it


@pytest.fixture
def gateway_unit(lab, gateway, folder, monkeypatch):
    """A function: the gateway's program runs as its unit does from now on, but for some capabilities."""
    unit, program = Unit("sag-vcpe"), reachable(lab.vcpe, folder)
    (folder.parent / "sag").mkdir(exist_ok=True)
    gateway.stop()

    def use(*without, **folders):
        writable = {folder: folder, "/sys/fs/bpf": "/sys/fs/bpf", "/run/sag": folder / "sag", **folders}
        monkeypatch.setitem(lab.env, "SAG_VCPE_BIN", unit.wrapper(folder, program, writable, without))
        lab.log.unlink(missing_ok=True)
        return unit

    yield use
    gateway.stop()


def granted(pid, unit, given_up=()):
    """The process has what the unit grants, all of it and nothing else, but for what it gives up itself."""
    has, bounding = privileges(pid), mask(unit.capabilities())
    want = bounding - mask(given_up)
    assert unit.capabilities() == unit.capabilities("AmbientCapabilities")
    # The kernel gives what is not dumpable to root.
    assert Path(f"/proc/{pid}/status").stat().st_uid == 0, "not dumpable"
    assert has == {"user": USER, "no_new_privs": True, "CapEff": want, "CapPrm": want, "CapBnd": bounding, "CapAmb": want}


def lives(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.sag
@pytest.mark.no_accounting
def test_the_system_under_its_units(lab, gateway, folder, gateway_unit):
    unit = gateway_unit()
    gateway.start(api_names(lab_config()))
    granted(gateway.pid(), unit)
    (folder / "cloud").mkdir()
    with cloud_of(lab, folder / "cloud") as cloud, http_server(lab.inet, A.INET[4], folder):
        own(folder / "cloud")
        served = Unit("sag-cloud")
        cloud.bin = served.wrapper(folder, reachable(cloud.bin, folder), {folder / "cloud": folder / "cloud"})
        cloud.start()
        assert not served.capabilities() and privileges(cloud.process.pid)["CapBnd"] == 0
        assert Path(f"/proc/{cloud.process.pid}/status").stat().st_uid == 0, "not dumpable"
        sag, sn = cloud.gateway()
        agent = Agent(lab, cloud, sag, sn)
        agent.sections = f'[lan]\nping = false\ndir = "{agent.folder / "lan"}"\n'
        own(agent.folder)
        runs = Unit("sag-agent")
        agent.bin = runs.wrapper(folder, reachable(agent.bin, folder), {agent.folder: agent.folder})
        branch = Branch(lab, cloud, agent, sag, sn)
        agent.start()
        try:
            within(10, "in force", branch.in_force, agent.tail)
            # It runs no DHCP client here, but dnsmasq where that is installed.
            has_dnsmasq = Path("/usr/sbin/dnsmasq").exists()
            granted(agent.process.pid, runs, [] if has_dnsmasq else ["net_bind_service"])
            # By the control socket.
            branch.snat("ENABLE")
            branch.soon("SNAT", lambda: branch.source() == A.GW_WAN[4], 3)
            # By netlink.
            lab.lan2.ip("addr add 10.44.0.2/24 dev eth0")
            lab.lan2.ip(f"neigh replace 10.44.0.1 lladdr {lab.gw.mac('lan-b')} dev eth0 nud permanent")
            branch.device("ModifySagLan", PortName="4", IPType="STATIC", IP="10.44.0.1", Mask="255.255.255.0")
            branch.soon("address", lambda: pings(lab.lan2, "10.44.0.1"), 3)
            # dnsmasq has its ports, and its files, as this user.
            if has_dnsmasq and shutil.which("udhcpc"):
                branch.device("ModifySagLan", PortName="4", IPType="DHCP", IP="10.44.0.1", Mask="255.255.255.0")
                branch.soon("lease", lambda: leased(lab.lan2, "eth0", folder).get("router") == "10.44.0.1", 3)
                branch.device("ModifySagLan", PortName="4", IPType="STATIC", IP="10.44.0.1", Mask="255.255.255.0")
            # By a socket of ICMP, where there are no unprivileged ones.
            lab.gw.run(["sysctl", "-q", "-w", "net.ipv4.ping_group_range=1 0"])
            check = branch.mine("CreateHealthCheck", Name="far", Type="ICMP_ECHO", SrcIpAddr=A.GW_EXPRESS[4], DstIpAddr=A.POP[4],
                                ProbeInterval=1000, ProbeTimeout=500, ProbeCount=2, FailCountThreshold=2)["InstanceId"]
            output = lambda: branch.mine("DescribeHealthChecks", HcInstanceId=check)["HealthChecks"]["HealthCheck"][0]["Status"]
            branch.soon("health check", lambda: output() == "ok", 5)
            # By a signal, since both have one user.
            pid = gateway.pid()
            branch.mine("RebootSmartAccessGateway", SerialNumber=sn)
            assert agent.wait(10) == 86, agent.tail()
            within(5, "the gateway ends", lambda: not lives(pid))
            gateway.start(agent.in_force())
            granted(gateway.pid(), unit)
            within(3, "traffic", lambda: branch.source() == A.GW_WAN[4], gateway.tail)
        finally:
            agent.stop()
            lab.lan2.ip("neigh del 10.44.0.1 dev eth0", check=False)
            lab.lan2.ip("addr del 10.44.0.2/24 dev eth0", check=False)
            lab.gw.ip("addr flush dev lan-b")
            lab.gw.ip(f"addr add {A.GW_LAN_B[4]}/26 dev lan-b")


@pytest.mark.sag
@pytest.mark.no_accounting
@pytest.mark.parametrize("one", ["bpf", "perfmon", "net_admin", "net_raw"])
def test_no_gateway_without(lab, gateway, gateway_unit, one):
    """Each of these is needed, and the message names it."""
    assert one in gateway_unit(one).capabilities()
    done = gateway.start(check=False)
    assert done.returncode != 0 and f"CAP_{one.upper()}" in done.stderr + done.stdout, done.stderr


@pytest.mark.sag
@pytest.mark.no_accounting
def test_pins_of_a_file_system_that_is_root_s_own(lab, gateway, folder, gateway_unit):
    """As systemd mounts it, mode 0700: CAP_DAC_OVERRIDE is for that."""
    pins = folder / "bpffs"
    pins.mkdir()
    run(["mount", "-t", "bpf", "-o", "mode=0700", "bpf", pins])
    try:
        config = re.sub(r'^pin_dir = .*', f'pin_dir = "{pins}/sag"', lab_config(), flags=re.M)
        gateway_unit("dac_override", **{str(pins): pins})
        refused = gateway.start(config, check=False)
        assert refused.returncode != 0 and "Permission denied" in refused.stderr + refused.stdout, refused.stderr
        gateway_unit(**{str(pins): pins})
        gateway.start(config)
        assert lab.lan1.ping(A.INET[4], count=3) == 3
        gateway.kill()
        gateway.start(config)
        assert lab.lan1.ping(A.INET[4], count=3) == 3
        gateway.kill()
    finally:
        run(["umount", pins], check=False)
