"""Files that the gateway writes, on a disk that is full, read-only, or rotated under them: what is lost is counted, and
writing goes on by itself when there is room."""

import contextlib
import json
import shutil
import socket
import time

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config, table
from harness.net import run
from harness.waiting import within

pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

SIZE = 256 << 10


@pytest.fixture
def disk(lab):
    """A small file system of its own."""
    folder = lab.run_dir / "disk"
    folder.mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder])
    yield folder
    run(["umount", "-l", folder], check=False)
    folder.rmdir()


def fill(folder):
    """Not a byte is left."""
    with open(folder / "filler", "ab", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(b"x" * 4096)


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
    run(["mount", "-o", f"remount,size={32 << 20}", disk])
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
    text = lab.gw.out(["curl", "-sS", "--max-time", 5, "http://127.0.0.1:9477/metrics"])
    assert 'sag_file_failing{file="NAT log"} 0' in text and 'sag_file_errors_total{file="NAT log"}' in text


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
