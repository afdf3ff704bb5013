"""Files that the gateway writes, on a disk that is full, read-only, or rotated under them: what is lost is counted, and
writing goes on by itself when there is room."""

import json
import shutil
import socket
import time

import pytest

from harness.config import lab_config
from harness.disk import covered, fill, remount, small_disk
from harness.lab import Addresses as A
from harness.nat import nat_config, table
from harness.tunnels import FAR, esp_keys, gateway_config, to_far, tunnel, tunnels, turned
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

SIZE = 256 << 10


@pytest.fixture
def disk(lab):
    """A small file system of its own."""
    with small_disk(lab.run_dir / "disk", SIZE) as folder:
        yield folder


def records(*paths):
    """What the files have, whole lines of JSON all of them."""
    text = "".join(path.read_text() for path in paths)
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def count(lines, event):
    return sum(line["event"] == event for line in lines)


class Sessions:
    """New sessions from lan1 to the Internet, half of them of each IP version."""

    def __init__(self, lab):
        self.sockets = {4: [], 6: []}
        self.lab, self.port, self.made = lab, 20000, 0

    def make(self, number):
        for n in range(number):
            family, kind = ((4, socket.AF_INET), (6, socket.AF_INET6))[n % 2]
            s = self.lab.lan1.socket(kind, socket.SOCK_DGRAM, 0)
            self.port += 1
            s.bind((A.LAN1[family], self.port))
            s.sendto(b"x", (A.INET[family], 5555))
            s.close()
        self.made += number


def created(gw):
    return gw.status()["sessions"]["created"]


def test_nat_log_on_a_full_disk(gw_with, lab, disk):
    path = disk / "nat.log"
    gw = gw_with(nat_config(table("nat", log="sessions", log_file=str(path)), new_flow_rate=50000))
    lost = lambda: gw.ctl("nat")["totals"]["log_lost"]
    sessions = Sessions(lab)
    sessions.make(20)
    within(3, "first records", lambda: path.exists() and count(records(path), "session-created") >= 20, gw.tail)
    assert {line["family"] for line in records(path)} == {4, 6}
    fill(disk)
    # Each has a record of 250 bytes or more: more than may wait.
    sessions.make(7000)
    within(10, "lost ones are counted", lambda: lost() > 0, gw.tail)
    assert [w for w in gw.status()["warnings"] if "NAT log" in w and "No space left" in w], gw.status()["warnings"]
    # Neither workers nor the control thread wait for it.
    start = time.monotonic()
    assert lab.lan1.ping(A.INET[4], count=3) == 3 and lab.lan1.ping(A.INET[6], count=3) == 3
    gw.status()
    print(f"pings and status during the outage: {time.monotonic() - start:.2f} s, lost {lost()}")
    remount(disk, f"size={32 << 20}")
    within(3, "records again", lambda: "records-lost" in path.read_text(), gw.tail)
    within(3, "no warning", lambda: not [w for w in gw.status()["warnings"] if "NAT log" in w])
    sessions.make(20)
    whole = lambda: count(records(path), "session-created") + sum(line.get("count", 0) for line in records(path))
    within(3, "every session is in the log or counted", lambda: whole() >= created(gw), gw.tail)
    lines = records(path)
    assert sum(line.get("count", 0) for line in lines) == lost()
    assert count(lines, "session-ended") + whole() - created(gw) >= 0
    numbers = [line["seq"] for line in lines]
    assert numbers == sorted(set(numbers))
    metrics = lambda: lab.gw.out(["curl", "-sS", "--max-time", 5, "http://127.0.0.1:9477/metrics"])
    # They are those of the last second.
    within(3, "metrics", lambda: 'sag_file_failing{file="NAT log"} 0' in metrics(), metrics)
    assert 'sag_file_errors_total{file="NAT log"}' in metrics()


def test_nat_log_is_rotated_without_a_word(gw_with, lab, disk):
    """By logrotate's ways, and removed, and not a file for a while; no reload tells the gateway."""
    path, old = disk / "nat.log", disk / "nat.log.1"
    gw = gw_with(nat_config(table("nat", log="sessions", log_file=str(path))))
    sessions = Sessions(lab)

    def more(*others):
        before = count(records(path), "session-created") if path.exists() else 0
        sessions.make(2)
        within(3, "records", lambda: path.exists() and count(records(path), "session-created") >= before + 2, gw.tail)
        records(path, *others)

    more()
    path.rename(old)
    within(2, "a new file", path.exists, gw.tail)
    more(old)
    path.rename(old)
    path.write_text("")
    time.sleep(0.7)
    more(old)
    shutil.copy(path, old)
    path.write_text("")
    more(old)
    path.unlink()
    within(2, "a new file", path.exists, gw.tail)
    more()
    path.unlink()
    path.mkdir()
    sessions.make(2)
    within(3, "said", lambda: [w for w in gw.status()["warnings"] if "Is a directory" in w], gw.tail)
    path.rmdir()
    within(3, "a new file", path.exists, gw.tail)
    more()
    assert gw.ctl("nat")["totals"]["log_lost"] == 0


def test_last_good_configuration_on_a_full_disk(gw_with, lab, disk, gateway):
    """A reload is answered at once, and the copy follows when there is room."""
    config = nat_config(state_dir=str(disk))
    gw = gw_with(config)
    copy = disk / "last-good.toml"
    within(2, "a copy", copy.exists, gw.tail)
    fill(disk)
    changed = config.replace('[dataplane]\n', '[dataplane]\n# changed\n', 1) + "#" * 8192 + "\n"
    gw.reload(changed)
    within(2, "said", lambda: [w for w in gw.status()["warnings"] if "last good configuration" in w], gw.tail)
    assert "# changed" not in copy.read_text()
    assert sorted(p.name for p in disk.iterdir() if p.name.endswith(".new")) == []
    (disk / "filler").unlink()
    within(3, "the new one", lambda: "# changed" in copy.read_text(), gw.tail)
    within(2, "no warning", lambda: not [w for w in gw.status()["warnings"] if "last good" in w])
    gateway.stop()


# --- read-only ------------------------------------------------------------------------------------


def warned(gw, *words):
    return [w for w in gw.status()["warnings"] if all(word in w for word in words)]


def test_nat_log_on_a_read_only_disk(gw_with, lab, disk):
    """From the start, and from later on; every session is in the log in the end."""
    path = disk / "nat.log"
    remount(disk, "ro")
    gw = gw_with(nat_config(table("nat", log="sessions", log_file=str(path))))
    sessions = Sessions(lab)
    sessions.make(20)
    within(3, "said", lambda: warned(gw, "NAT log", "Read-only file system"), gw.tail)
    assert lab.lan1.ping(A.INET[4], count=3) == 3 and lab.lan1.ping(A.INET[6], count=3) == 3
    remount(disk, "rw")
    every = lambda: path.exists() and count(records(path), "session-created") >= created(gw)
    within(3, "every session", every, gw.tail)
    within(3, "no warning", lambda: not warned(gw, "NAT log"))
    with covered(disk):
        within(3, "said again", lambda: sessions.make(1) or warned(gw, "NAT log", "Read-only file system"), gw.tail)
        sessions.make(20)
    within(3, "every session", every, gw.tail)
    within(3, "no warning", lambda: not warned(gw, "NAT log"))
    assert gw.ctl("nat")["totals"]["log_lost"] == 0
    numbers = [line["seq"] for line in records(path)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_read_only_state_directory(gw_with, lab, disk, gateway):
    """A reload is in force and answered, and the copy follows when it can be written."""
    config = lab_config(state_dir=str(disk))
    gw = gw_with(config)
    copy = disk / "last-good.toml"
    within(2, "a copy", copy.exists, gw.tail)
    remount(disk, "ro")
    gw.reload(config.replace("[dataplane]\n", "[dataplane]\n# changed\n", 1))
    within(2, "said", lambda: warned(gw, "last good configuration", "Read-only file system"), gw.tail)
    assert lab.lan1.ping(A.INET[4], count=3) == 3
    # So does a start.
    config = gateway.running
    gateway.stop()
    gw = gw_with(config)
    within(2, "said", lambda: warned(gw, "last good configuration", "Read-only file system"), gw.tail)
    assert lab.lan1.ping(A.INET[4], count=3) == 3
    remount(disk, "rw")
    within(3, "the new one", lambda: "# changed" in copy.read_text(), gw.tail)
    within(2, "no warning", lambda: not warned(gw, "last good"))
    gateway.stop()


def test_numbers_of_static_keys_on_a_read_only_disk(gw_with, lab, far, disk, gateway):
    """Nothing is sent under a key whose numbers cannot be reserved, by name; all else goes on, and so does the tunnel when
    they can be. While a reserve lasts, nobody notices."""
    keys = esp_keys()
    config = lab_config(tunnel("pop1", "esp", 4, **keys, probe_interval=0) + to_far("pop1"), state_dir=str(disk))
    far.use(far.config("esp", 4, **turned(keys), probe_interval=0))
    remount(disk, "ro")
    gw = gw_with(config)
    withheld = lambda: tunnels(gw)["pop1"]["esp"]["withheld"]
    within(3, "said", lambda: "Read-only file system" in (withheld() or ""), gw.tail)
    assert lab.lan1.ping(FAR[4], count=2, wait=1) == 0
    assert lab.lan1.ping(A.INET[4], count=3) == 3
    remount(disk, "rw")
    within(5, "the tunnel", lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1, gw.tail)
    assert withheld() is None and (disk / "esp-sequence.json").exists()
    remount(disk, "ro")
    assert lab.lan1.ping(FAR[4], count=50, interval=0.01) == 50
    remount(disk, "rw")
    gateway.stop()


def test_no_room_for_the_numbers_received(gw_with, gateway, lab, far, tmp_path, monkeypatch):
    """A tmpfs at /run that is full: the tunnel works, and the log says what a crash would cost."""
    keys = esp_keys()
    far.use(far.config("esp", 4, **turned(keys), probe_interval=0))
    gateway.stop()
    program = tmp_path / "sag-vcpe"
    # One page, and four are needed. The mount is of this process alone.
    mount = 'mkdir -p /run/sag; mount -t tmpfs -o size=4k tmpfs /run/sag && exec "$0" "$@"'
    program.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{mount}' {lab.vcpe} \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setitem(lab.env, "SAG_VCPE_BIN", str(program))
    gw = gw_with(gateway_config("esp", 4, **keys, probe_interval=0))
    within(5, "the tunnel", lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1, gw.tail)
    said = [line for line in lab.log.read_text().splitlines() if "esp-unmirrored" in line]
    assert len(said) == 1 and "No space left on device" in said[0] and "after a crash" in said[0], said
    gateway.stop()


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_no_room_for_the_control_socket(gw_with, gateway, lab, trouble):
    """The daemon does not start without its socket, and says why; with room it does."""
    with small_disk(lab.run_dir / "sockets", SIZE) as folder:
        remount(folder, "nr_inodes=1" if trouble == "full" else "ro")
        config = lab_config(control=str(folder / "vcpe.sock"))
        path = lab.run_dir / "no-socket.toml"
        path.write_text(config.replace("sag-lab", lab.run_dir.name))
        gateway.stop()
        code, said = gateway.foreground("run", "--config", path)
        why = "No space left on device" if trouble == "full" else "Read-only file system"
        assert code == 1 and f"control socket {folder}/vcpe.sock: cannot listen: {why}" in said, said
        gateway.foreground("unload", "--config", path)
