"""The packages in a guest that has nothing of ours: installed, upgraded under traffic, downgraded, removed, purged."""

import subprocess
from pathlib import Path

import pytest

from bed import images
from bed.site import ECHO_PORT, GATEWAY, Site, conversations, echoes, reaches
from harness.flood import Server
from harness.waiting import within

FOLDER = images.TARGET / "packages"
# What dpkg and systemd keep of a package that was here is theirs.
LEFT = "find / -xdev \\( -name '*sag-*' -o -name sag -o -name sagctl \\) -not -path '/proc/*' -not -path '/opt/*' -not -path '/var/lib/dpkg/*'"


def package(name: str) -> Path:
    found = sorted(FOLDER.glob(f"{name}_*.deb"))
    if not found:
        pytest.skip(f"no package {name} in {FOLDER}: scripts/package.sh builds it")
    return found[-1]


def newer(deb: Path, folder: Path) -> Path:
    """The same package with a higher version."""
    tree, out = folder / "tree", folder / "newer.deb"
    for command in (
        ["dpkg-deb", "-R", deb, tree],
        ["sed", "-i", "s/^Version: .*/&.1/", tree / "DEBIAN/control"],
        ["dpkg-deb", "-Zgzip", "--root-owner-group", "-b", tree, out],
    ):
        subprocess.run([str(a) for a in command], check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def bare(kernel, tmp_path_factory):
    """A site and a guest without our programs, and the packages in /opt/packages."""
    if kernel.version < images.OLDEST:
        pytest.skip("older than the gateway supports")
    vcpe = package("sag-vcpe")
    files = {
        "opt/packages/sag-vcpe.deb": vcpe.read_bytes(),
        "opt/packages/newer.deb": newer(vcpe, tmp_path_factory.mktemp("newer")).read_bytes(),
        "opt/packages/sag-cloud.deb": package("sag-cloud").read_bytes(),
        "opt/packages/sag-vcpe-all.deb": package("sag-vcpe-all").read_bytes(),
    }
    site = Site("packages")
    try:
        guest = site.boot(kernel, packages=files)
        server = Server(site.wan, ECHO_PORT)
        yield site, guest
        server.close()
        guest.stop()
    finally:
        site.close()


def test_from_the_package_to_the_packet_and_back(bare, seen):
    site, guest = bare
    before = set(guest.out(LEFT).splitlines())
    install = "dpkg -i --force-confold"
    guest.run(f"{install} /opt/packages/sag-vcpe.deb", timeout=600)
    for unit in ("sag-vcpe", "sag-agent"):
        state = guest.unit(unit)
        # It waits for its configuration, and starts with the machine once there is one.
        assert (state["ActiveState"], state["UnitFileState"], state["ConditionResult"]) == ("inactive", "enabled", "no")
    assert guest.out("systemctl --failed --no-legend") == ""
    assert "sag" in guest.out("id sag")
    assert guest.out("stat -c '%U:%G %a' /etc/sag").strip() == "root:sag 750"
    assert "/usr/share/man/man1/sagctl.1.gz" in guest.out("dpkg -L sag-vcpe")
    guest.write("/etc/sag/vcpe.toml", GATEWAY)
    guest.run("systemctl start sag-vcpe", timeout=240)
    within(60, "forwards", lambda: reaches(site), lambda: guest.journal("sag-vcpe"))
    version = "dpkg-query -W -f '${Version}' sag-vcpe"
    first, pid = guest.out(version), guest.unit("sag-vcpe")["MainPID"]
    with conversations(site) as live:
        # Up and down again: the sessions do not notice, though the daemon is another each time.
        for deb in ("newer", "sag-vcpe"):
            guest.run(f"{install} --force-downgrade /opt/packages/{deb}.deb", timeout=600)
            guest.wait("systemctl is-active sag-vcpe", 240)
            now = guest.unit("sag-vcpe")["MainPID"]
            assert now != pid, f"{deb} has not replaced the daemon"
            pid = now
            assert (guest.out(version) == first) == (deb == "sag-vcpe")
            for sock in live:
                assert echoes(sock, b"still here"), deb
    within(60, "new sessions", lambda: reaches(site), lambda: guest.journal("sag-vcpe"))
    guest.run("dpkg -r sag-vcpe", timeout=600)
    assert "xdp" not in guest.out("ip -d link"), "the program is still in the kernel"
    assert guest.out("ls /sys/fs/bpf").split() == [], "maps are still in the kernel"
    assert "[[port]]" in guest.out("cat /etc/sag/vcpe.toml"), "the configuration stays until the package is purged"
    guest.run("dpkg -P sag-vcpe", timeout=600)
    assert set(guest.out(LEFT).splitlines()) <= before
    assert guest.run("id sag", check=False).code != 0
    seen["packages"] = f"{first} installed, upgraded, downgraded, purged"


def test_the_cloud(bare):
    _, guest = bare
    before = set(guest.out(LEFT).splitlines())
    guest.run("dpkg -i /opt/packages/sag-cloud.deb", timeout=600)
    guest.wait("systemctl is-active sag-cloud", 240)
    ready = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8180/readyz', timeout=60).status)"
    assert guest.out(["python3", "-c", ready]).strip() == "200"
    guest.run("dpkg -P sag-cloud", timeout=600)
    assert set(guest.out(LEFT).splitlines()) <= before


def test_both(bare):
    _, guest = bare
    guest.run("dpkg -i /opt/packages/sag-vcpe.deb /opt/packages/sag-cloud.deb /opt/packages/sag-vcpe-all.deb", timeout=600)
    guest.run("dpkg -P sag-vcpe-all sag-vcpe sag-cloud", timeout=600)
