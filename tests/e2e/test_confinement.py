"""Outside of systemd, too, the gateway keeps only what it needs, and that is enough; and who may do what on its socket."""

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from harness.cloud import Agent, Branch, api_names, cloud_of
from harness.config import lab_config
from harness.lab import Addresses as A
from harness.nat import nat_config, table
from harness.net import run
from harness.sandbox import mask, reachable
from harness.seccomp import numbers, without, wrapper
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

KEEPS = mask(["bpf", "net_admin", "net_raw", "perfmon", "ipc_lock", "dac_override"])
USER, READERS, ADMINS = 61217, 61300, 61301


def threads(pid):
    """What the kernel says of each thread."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)


def answers(lab):
    return all(lab.lan1.ping(A.INET[family], count=1, wait=1) == 1 for family in (4, 6))


def test_all_threads_are_confined(gw, lab):
    seen = list(threads(gw.pid()))
    assert len(seen) >= 4
    for thread in seen:
        name = thread["Name"]
        for key in ("CapEff", "CapPrm", "CapBnd"):
            assert int(thread[key], 16) == KEEPS, (name, key, thread[key])
        assert int(thread["CapInh"], 16) == int(thread["CapAmb"], 16) == 0, name
        assert (thread["NoNewPrivs"], thread["Seccomp"]) == ("1", "2"), name
    log = lab.log.read_text()
    assert "privileges dropped" in log and "(seccomp)" in log
    assert "(landlock)" in log or "landlock" in log
    limits = Path(f"/proc/{gw.pid()}/limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4:6] == ["0", "0"]


def test_what_it_keeps_is_enough(gw, lab):
    """A device that goes and returns, a port that is added by a reload, pins that are made again, a restart over it all."""
    assert answers(lab)
    # Gone and back: XDP is attached and sockets are opened again.
    pair = "link add name lan-x type veth peer name lan-y"
    lab.gw.ip(pair)
    try:
        lab.gw.ip("link set lan-x up")
        lab.gw.ip("link set lan-y up")
        config = lab_config() + '\n[[port]]\nname = "9"\ndevice = "lan-x"\nrole = "lan"\n'
        gw.reload(config)
        within(5, "the new port", lambda: gw.ports()["9"]["xdp_mode"] == "native" and gw.ports()["9"]["xsk_mode"] != "none", gw.tail)
        lab.gw.ip("link del lan-x")
        within(5, "gone", lambda: gw.ports()["9"]["xdp_mode"] == "none", gw.tail)
        lab.gw.ip(pair)
        lab.gw.ip("link set lan-x up")
        lab.gw.ip("link set lan-y up")
        within(10, "back", lambda: gw.ports()["9"]["xdp_mode"] == "native" and gw.ports()["9"]["xsk_mode"] != "none", gw.tail)
        folder = next(lab.pins.rglob("gw_shared")).parent
        before = {path.name for path in folder.iterdir()}
        shutil.rmtree(folder)
        within(3, "pins", lambda: folder.exists() and {path.name for path in folder.iterdir()} == before, gw.tail)
        gw.reload(lab_config())
    finally:
        lab.gw.ip("link del lan-x", check=False)
    lab.flush_neighbours()
    within(5, "traffic", lambda: answers(lab), gw.tail)
    gw.ctl("sessions", "flush", "--all")
    assert answers(lab)
    assert "Operation not permitted" not in lab.log.read_text()
    assert not [w for w in gw.status()["warnings"] if "permitted" in w or "denied" in w]


def test_files_are_where_the_configuration_says(gateway, lab, tmp_path):
    """State and NAT log outside of the usual places, a log that is moved by a reload or whose directory is replaced, a
    state directory that is removed, and a configuration behind a link that is turned."""
    state, releases, current = tmp_path / "state", tmp_path / "releases", tmp_path / "current"
    log = lambda name: tmp_path / name / "nat.log"

    def config(name, **keys):
        return nat_config(table("nat", log="sessions", log_file=str(log(name))), state_dir=str(state), **keys)

    def logged(path):
        """New sessions come into the file, as soon as it is noticed that it is another one."""

        def new():
            gateway.ctl("sessions", "flush", "--all")
            assert answers(lab)
            time.sleep(0.2)
            return path.exists() and "session-created" in path.read_text()

        within(5, f"records in {path}", new, gateway.tail)

    gateway.stop()
    for number in "12":
        (releases / number).mkdir(parents=True)
    for name in ("one", "two"):
        log(name).parent.mkdir()
    current.symlink_to(releases / "1")
    lab.conf.unlink(missing_ok=True)
    lab.conf.symlink_to(current / "vcpe.toml")
    try:
        gateway.start(config("one"))
        assert (releases / "1" / "vcpe.toml").exists(), "it is read by the links"
        logged(log("one"))
        within(5, "state", (state / "last-good.toml").exists, gateway.tail)
        assert state.stat().st_mode & 0o777 == 0o700
        # The link is turned to another configuration, with another log.
        turned = tmp_path / "turned"
        turned.symlink_to(releases / "2")
        turned.rename(current)
        gateway.reload(config("two"))
        assert (releases / "2" / "vcpe.toml").exists()
        logged(log("two"))
        log("two").parent.rename(tmp_path / "three")
        log("two").parent.mkdir()
        logged(log("two"))
        shutil.rmtree(state)
        gateway.reload(config("two", acl_stateful=False))
        within(5, "state", (state / "last-good.toml").exists, gateway.tail)
        text = lab.log.read_text()
        assert "ermission denied" not in text and "not permitted" not in text
        # Those who write files have the same privileges and system calls as all others.
        kept = {thread["Name"]: thread for thread in threads(gateway.pid())}
        for name in ("journal", "saver", "esp-ledger"):
            assert int(kept[name]["CapEff"], 16) == KEEPS and kept[name]["Seccomp"] == "2", name
    finally:
        gateway.stop()
        lab.conf.unlink(missing_ok=True)


@pytest.mark.parametrize("mode", ["log", "off"])
def test_the_sandbox_can_be_turned_off(gateway, lab, mode):
    gateway.stop()
    lab.log.unlink(missing_ok=True)
    gateway.start(lab_config(sandbox=mode))
    seen = list(threads(gateway.pid()))
    assert {thread["Seccomp"] for thread in seen} == {"2" if mode == "log" else "0"}
    assert {int(thread["CapEff"], 16) for thread in seen} == {KEEPS}
    assert "sandbox" in lab.log.read_text()
    assert answers(lab)
    gateway.stop()


def test_a_file_outside_is_not_read(gateway, lab, tmp_path):
    """A configuration that is turned to a place that was not on the way when the daemon started: refused, until the sandbox
    is off. It stands for whatever else the daemon might be made to open."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "vcpe.toml").write_text("")
    (outside / "vcpe.toml").write_text((lab_config() + "# outside\n").replace("sag-lab", lab.run_dir.name))
    gateway.stop()
    lab.conf.unlink(missing_ok=True)
    lab.conf.symlink_to(inside / "vcpe.toml")
    ask = [lab.sagctl, "--socket", lab.socket, "reload"]
    try:
        for mode, refused in (("enforce", True), ("off", False)):
            gateway.start(lab_config(sandbox=mode))
            lab.conf.unlink()
            lab.conf.symlink_to(outside / "vcpe.toml")
            done = run(ask, check=False)
            if refused and "(landlock)" not in lab.log.read_text():
                pytest.skip("this kernel has no landlock")
            assert (done.returncode != 0) == refused, (mode, done.stdout + done.stderr)
            if refused:
                assert "Permission denied" in done.stderr and "dataplane.sandbox" in done.stderr, done.stderr
                assert answers(lab), "the running configuration stays"
            gateway.stop()
            lab.conf.unlink()
            lab.conf.symlink_to(inside / "vcpe.toml")
    finally:
        gateway.stop()
        lab.conf.unlink(missing_ok=True)


def test_a_kernel_without_landlock(gateway, lab, tmp_path, monkeypatch):
    """It is a warning, and the rest holds."""
    if not numbers():
        pytest.skip("no kernel headers of this processor (linux-libc-dev)")
    gateway.stop()
    lab.log.unlink(missing_ok=True)
    plan = without(tmp_path / "no-landlock", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
    monkeypatch.setitem(lab.env, "SAG_VCPE_BIN", wrapper(tmp_path, lab.vcpe, plan))
    gateway.start(lab_config())
    assert answers(lab)
    log = lab.log.read_text()
    assert "files not confined: the kernel has no landlock" in log and "(seccomp)" in log, log
    assert {thread["Seccomp"] for thread in threads(gateway.pid())} == {"2"}
    gateway.stop()


def test_signs_of_life(gateway, lab, tmp_path, monkeypatch):
    """What systemd waits for: READY when the gateway forwards, then WATCHDOG while the event loop runs, and no longer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setitem(lab.env, "NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setitem(lab.env, "WATCHDOG_USEC", "1000000")
        gateway.stop()
        gateway.start(lab_config())
        seen = set()
        while seen != {b"READY=1", b"WATCHDOG=1"}:
            seen.add(systemd.recv(100).strip())
        for _ in range(3):
            before = time.monotonic()
            assert systemd.recv(100).strip() == b"WATCHDOG=1"
            assert time.monotonic() - before < 1
        # A daemon that hangs gives none.
        os.kill(gateway.pid(), signal.SIGSTOP)
        try:
            time.sleep(0.1)
            systemd.setblocking(False)
            while True:
                try:
                    systemd.recv(100)
                except BlockingIOError:
                    break
            systemd.settimeout(1.5)
            with pytest.raises(TimeoutError):
                systemd.recv(100)
        finally:
            os.kill(gateway.pid(), signal.SIGCONT)
        gateway.stop()


def hidden_kb(pid):
    """Memory without a file that is locked (`lo`) and left out of images of the process (`dd`)."""
    total, size, anonymous = 0, 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            anonymous = len(rest) == 4
        elif name == "Size:":
            size = int(rest[0])
        elif name == "VmFlags:" and anonymous and {"dd", "lo"} <= set(rest):
            total += size
    return total


def test_keys_are_in_no_image_of_the_process(gw):
    before = hidden_kb(gw.pid())
    assert gw.ctl("tunnels", "key", "g")["public_key"]
    assert hidden_kb(gw.pid()) >= before + 4


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """What the programs that are started from now on tell systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as it:
        it.bind(str(tmp_path / "notify"))
        it.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        yield it


def confined(pid, keeps, log):
    seen = list(threads(pid))
    assert len(seen) >= 2
    for thread in seen:
        name = thread["Name"]
        assert [int(thread[key], 16) for key in ("CapEff", "CapPrm", "CapBnd")] == [keeps] * 3, name
        assert (thread["NoNewPrivs"], thread["Seccomp"]) == ("1", "2"), name
    text = log.read_text()
    assert "(seccomp)" in text and "landlock" in text
    assert "not permitted" not in text and "ermission denied" not in text, text


def serves(systemd):
    """It says that it serves, and goes on saying so."""
    seen = []
    while b"READY=1" not in seen or seen[-3:] != [b"WATCHDOG=1"] * 3:
        seen.append(systemd.recv(100).strip())


def test_the_cloud(systemd, lab, tmp_path):
    with cloud_of(lab, tmp_path) as cloud:
        cloud.start()
        serves(systemd)
        cloud.gateway()
        confined(cloud.process.pid, 0, cloud.folder / "cloud.log")


def test_the_agent(gateway, lab, tmp_path, request):
    with cloud_of(lab, tmp_path) as cloud:
        gateway.ensure(api_names(lab_config()))
        cloud.start()
        sag, sn = cloud.gateway()
        systemd = request.getfixturevalue("systemd")
        agent = Agent(lab, cloud, sag, sn)
        # What it runs needs more.
        agent.sections = '[lan]\nmode = "off"\n'
        agent.start()
        try:
            serves(systemd)
            within(10, "in force", Branch(lab, cloud, agent, sag, sn).in_force, agent.tail)
            keeps = ["net_admin", "net_raw", "kill", "dac_override", "fowner", "chown"]
            confined(agent.process.pid, mask(keeps), agent.log)
        finally:
            agent.stop()
            gateway.stop()


@pytest.fixture
def roles(gateway, lab):
    """A function: sagctl as a member of a group; (exit code, output)."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed (util-linux)")
    gateway.stop()
    lab.run_dir.chmod(0o755)
    gateway.start(lab_config(control_read_group=str(READERS), control_admin_group=str(ADMINS)))
    program = reachable(lab.sagctl, lab.run_dir)

    def ask(group, *arguments):
        who = ["setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={group}" if group else "--clear-groups"]
        done = run([*who, program, "--socket", lab.socket, "--json", *arguments], check=False)
        return done.returncode, done.stdout + done.stderr

    yield ask
    gateway.stop()


def test_roles_by_group(roles, gateway, lab):
    assert answers(lab)
    code, output = roles(READERS, "status")
    assert code == 0 and json.loads(output)["pid"] == gateway.pid()
    for reading in (["ports"], ["sessions"], ["config", "show"], ["nat"], ["tunnels"]):
        assert roles(READERS, *reading)[0] == 0, reading
    file = lab.run_dir / "new.toml"
    file.write_text(lab.conf.read_text())
    for changing in (["sessions", "flush", "--all"], ["reload"], ["config", "apply", file], ["config", "diff", file], ["tunnels", "key", "g"]):
        code, output = roles(READERS, *changing)
        assert code == 1 and "administrators" in output and "control_admin_group" in output, (changing, output)
    assert roles(ADMINS, "sessions", "flush", "--all")[0] == 0
    code, output = roles(None, "status")
    assert code != 0 and f"user {USER} may not use the control socket" in output, output
    assert f"member of group {ADMINS}" in output, "the remedy"
    # The main group counts, too.
    who = ["setpriv", f"--reuid={USER}", f"--regid={READERS}", "--clear-groups"]
    assert run([*who, reachable(lab.sagctl, lab.run_dir), "--socket", lab.socket, "status"]).returncode == 0


def test_the_mode_of_the_socket_gives_no_role(gateway, lab):
    """A user whom an administrator let in by the file alone, as it was done before there were roles, is told what to do."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed (util-linux)")
    gateway.stop()
    lab.run_dir.chmod(0o755)
    # Groups that no machine has.
    gateway.start(lab_config(control_read_group="sag-none-r", control_admin_group="sag-none-a"))
    assert Path(lab.socket).stat().st_mode & 0o777 == 0o660
    Path(lab.socket).chmod(0o666)
    who = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    done = run([*who, reachable(lab.sagctl, lab.run_dir), "--socket", lab.socket, "status"], check=False)
    assert done.returncode != 0 and "gives no role" in done.stderr and "groupadd sag-none-a" in done.stderr, done.stderr
    assert answers(lab)
    gateway.stop()


CROWD = """
import os, socket, sys, time
os.setgroups([{groups}]); os.setgid({user}); os.setuid({user})
held = []
for _ in range(200):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    held.append(s)
print("there", flush=True)
time.sleep(30)
"""


@pytest.mark.parametrize("groups", [str(READERS), ""], ids=["readers", "strangers"])
def test_a_crowd_keeps_no_administrator_out(roles, gateway, lab, groups):
    """200 connections of one who may only read, or nothing at all, push no administrator's connection out."""
    mine = socket.socket(socket.AF_UNIX)
    mine.connect(lab.socket)
    mine.settimeout(10)
    ask = b'{"v":1,"id":1,"op":"status"}\n'
    mine.sendall(ask)
    assert b'"ok"' in mine.recv(1 << 16)
    crowd = lab.gw.popen(["/usr/bin/python3", "-c", CROWD.format(groups=groups, user=USER), lab.socket])
    try:
        assert crowd.stdout.readline().strip() == "there"
        time.sleep(0.2)
        mine.sendall(ask)
        assert b'"ok"' in mine.recv(1 << 16), "the connection of before"
        assert gateway.status()["pid"] == gateway.pid()
        if groups:
            assert roles(READERS, "status")[0] == 0
    finally:
        crowd.kill()
        crowd.wait()
        mine.close()
