"""Numbers of static keys over the end of the daemon, whatever the clock and the state directory do: no nonce is used
twice under a key, and no packet is accepted twice."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from scapy.layers.ipsec import ESP, SecurityAssociation

from harness.lab import Addresses as A
from harness.net import run
from harness.tunnels import FAR, LOCAL, REMOTE, SPI_IN, SPI_OUT, esp_keys, gateway_config, tunnels, wait_for
from harness.wire import IP, UDP, Ether, IPv6, Raw, mark_of, marked

# A daemon that is killed takes its counters with it.
pytestmark = [pytest.mark.sag, pytest.mark.no_accounting]

COMPILER = shutil.which("cc") or shutil.which("clang")
NOW = 1_784_000_000
# The wall clock of one process, as a file says.
CLOCK = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *t)
{
	const char *path = getenv("SAG_TEST_CLOCK");
	long long seconds;
	FILE *f;

	if (id != CLOCK_REALTIME || !path || !(f = fopen(path, "r")))
		return syscall(SYS_clock_gettime, id, t);
	if (fscanf(f, "%lld", &seconds) == 1) {
		t->tv_sec = seconds;
		t->tv_nsec = 0;
	}
	fclose(f);
	return 0;
}
"""


@pytest.fixture
def clock(lab, tmp_path, monkeypatch):
    """A function that sets the daemon's wall clock, which then stands still."""
    if COMPILER is None:
        pytest.skip("no C compiler (scripts/setup.sh installs one)")
    source, library, says = tmp_path / "clock.c", tmp_path / "clock.so", tmp_path / "clock"
    source.write_text(CLOCK)
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    monkeypatch.setitem(lab.env, "LD_PRELOAD", str(library))
    monkeypatch.setitem(lab.env, "SAG_TEST_CLOCK", str(says))
    return lambda seconds: says.write_text(f"{seconds}\n")


def state_file(lab) -> Path:
    return Path("/run", lab.run_dir.name, "state", "esp-sequence.json")


def words_file(lab) -> Path:
    return Path("/run/sag", str(lab.pins).strip("/").replace("/", "-") + ".esp")


def ivs(lab, wire, packets):
    """The SPI, sequence number and IV of what the gateway sends for so many packets of a host."""
    far_wire = wire.sniffer(lab.inet, "eth0")
    link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
    send = wire.sender(lab.lan1, "eth0").send
    out = []
    for n in range(packets):
        send(link / IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1, dport=2) / Raw(marked(n)))
        caught = far_wire.until(lambda p: ESP in p)
        assert caught is not None, f"packet {n} did not come out"
        esp = caught[ESP]
        out.append((esp.spi, esp.seq, bytes(esp.data)[:8]))
    return out


@pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
def test_no_nonce_repeats_whatever_the_clock_does(gw_with, gateway, lab, wire, clock, outer):
    """The clock stands still, is set back, and was stolen for a while; the daemon is killed each time."""
    config = gateway_config("esp", outer, **esp_keys(), probe_interval=0)
    lab.mute("inet")
    seen = []
    for seconds in (NOW, NOW, NOW - 86_400, 0, NOW + (1 << 31), NOW):
        clock(seconds)
        gw_with(config)
        seen += ivs(lab, wire, 10)
        gateway.kill()
    assert {spi for spi, _, _ in seen} == {SPI_OUT}
    nonces, numbers = [iv for _, _, iv in seen], [sequence for _, sequence, _ in seen]
    assert len(set(nonces)) == len(seen), "an IV was used twice under one key"
    assert numbers == sorted(set(numbers)), "sequence numbers go on"


class Peer:
    """The far end, made of scapy."""

    def __init__(self, lab, wire, outer, keys):
        self.lab, self.outer, self.make = lab, outer, {4: IP, 6: IPv6}[outer]
        nat = {"nat_t_header": UDP(sport=4500, dport=4500)} if outer == 4 else {}
        self.sa = SecurityAssociation(
            ESP, spi=SPI_IN, crypt_algo="AES-GCM", crypt_key=bytes.fromhex(keys["key_in"]), esn_en=True,
            tunnel_header=self.make(src=REMOTE[outer], dst=LOCAL[outer]), **nat,
        )
        self.back = Ether(src=lab.wan.mac("gw"), dst=lab.gw.mac("wan"))
        self.send = wire.sender(lab.wan, "gw").send
        self.near = wire.sniffer(lab.lan1, "eth0")

    def sealed(self, n, number):
        inner = IP(src=FAR[4], dst=A.LAN1[4]) / UDP(sport=2, dport=1) / Raw(marked(n))
        packet = self.sa.encrypt(inner, seq_num=number)
        return bytes(packet[UDP].payload if self.outer == 4 else packet.payload)

    def deliver(self, esp, port):
        packet = self.make(src=REMOTE[self.outer], dst=LOCAL[self.outer])
        self.send(self.back / packet / UDP(sport=port, dport=4500, chksum=0) / Raw(esp))

    def arrives(self, n):
        return self.near.until(lambda p: mark_of(bytes(p)) == n) is not None


def replays(gw):
    return sum(n for (_, reason), n in gw.drops().items() if reason == "esp-replay")


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-lost"])
@pytest.mark.parametrize("outer", [4, 6], ids=["over4", "over6"])
def test_recorded_packets_are_refused_after_a_crash(gw_with, gateway, lab, wire, outer, power):
    """And none of them moves the peer. After a loss of power the numbers in shared memory are gone as well."""
    keys = esp_keys()
    config = gateway_config("esp", outer, **keys, udp_encap=True, probe_interval=0)
    lab.mute("inet")
    gw = gw_with(config)
    peer = Peer(lab, wire, outer, keys)
    recorded = []
    for n in range(1, 41):
        recorded.append(peer.sealed(n, n))
        peer.deliver(recorded[-1], 31_000)
        assert peer.arrives(n), gw.tail()
    assert tunnels(gw)["pop1"]["esp"]["peer"].endswith(":31000")
    if power:
        # What is written ahead is on disk within a few ticks.
        time.sleep(0.5)
    gateway.kill()
    if power:
        words_file(lab).unlink(missing_ok=True)
    gw = gw_with(config)
    assert tunnels(gw)["pop1"]["esp"]["peer"] is None
    for esp in recorded:
        peer.deliver(esp, 666)
    wait_for(lambda: replays(gw) == len(recorded), 5)
    assert tunnels(gw)["pop1"]["esp"]["peer"] is None, "a replayed packet moved the peer"
    # The peer itself goes on: at once, or behind what was reserved.
    number = 50_000 if power else 41
    peer.deliver(peer.sealed(100, number), 31_001)
    assert peer.arrives(100), gw.tail()
    assert tunnels(gw)["pop1"]["esp"]["peer"].endswith(":31001")


def lost(lab, _backup):
    state_file(lab).unlink()


def lost_with_all_traces(lab, _backup):
    """The whole directory; that the key was in use is known from shared memory."""
    shutil.rmtree(state_file(lab).parent)


def cut_short(lab, _backup):
    text = state_file(lab).read_bytes()
    state_file(lab).write_bytes(text[: len(text) // 2])


def restored(lab, backup):
    # With its times, as a backup has it.
    shutil.copy2(backup, state_file(lab))


@pytest.mark.parametrize("damage", [lost, lost_with_all_traces, cut_short, restored])
def test_without_its_record_a_key_is_withheld_by_name(gw_with, gateway, lab, wire, tmp_path, damage):
    """Nothing is sent until the operator confirms, or gives a new key."""
    keys = esp_keys()
    config = gateway_config("esp", 4, **keys, probe_interval=0)
    lab.mute("inet")
    gw = gw_with(config)
    assert tunnels(gw)["pop1"]["esp"]["withheld"] is None
    backup = tmp_path / "backup"
    shutil.copy2(state_file(lab), backup)
    first = ivs(lab, wire, 3)
    gateway.kill()
    # It starts once more, and so writes the record again.
    gw_with(config)
    first += ivs(lab, wire, 3)
    gateway.kill()
    damage(lab, backup)
    for _ in range(2):
        # Another restart changes nothing.
        gw = gw_with(config)
        why = tunnels(gw)["pop1"]["esp"]["withheld"]
        assert why is not None and "sagctl tunnels confirm pop1" in why, why
        table = run([lab.sagctl, "--socket", lab.socket, "tunnels"]).stdout
        assert "pop1 sends nothing" in table and "rekey" in table
        link = Ether(src=lab.lan1.mac("eth0"), dst=lab.gw.mac("lan-a"))
        wire.sender(lab.lan1, "eth0").send(link / IP(src=A.LAN1[4], dst=FAR[4]) / UDP(sport=1, dport=2) / Raw(b"x"))
        wait_for(lambda gw=gw: any(r == "esp-unreserved" and n for (_, r), n in gw.drops().items()), 5)
        gateway.kill()
    gw = gw_with(config)
    if damage is cut_short:
        new = tmp_path / "keys"
        fresh = esp_keys(spi=0x20)
        new.write_text("".join(f"{k} = {v!r}\n".replace("'", '"') for k, v in fresh.items()))
        gw.ctl("tunnels", "rekey", "pop1", str(new), "--now")
        assert {spi for spi, _, _ in ivs(lab, wire, 3)} == {fresh["spi_out"]}
    else:
        gw.ctl("tunnels", "confirm", "pop1")
        again = ivs(lab, wire, 3)
        assert not {iv for _, _, iv in first} & {iv for _, _, iv in again}
    assert tunnels(gw)["pop1"]["esp"]["withheld"] is None


def test_the_same_key_twice_is_refused(lab, gateway, tmp_path):
    """In both directions of a tunnel, and in two tunnels."""
    keys = esp_keys()
    path = tmp_path / "vcpe.toml"
    path.write_text(gateway_config("esp", 4, **{**keys, "key_out": keys["key_in"]}))
    code, output = gateway.foreground("check", "--config", path)
    assert code == 1 and "is the same key and salt as" in output and "make a key for each" in output
