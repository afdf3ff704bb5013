"""A host behind the gateway speaks IKE, from port 4500 to port 4500, with the very peer of the gateway's own ESP in UDP."""

import re
import shutil

import pytest

from harness.lab import Addresses as A
from harness.nat import nat_config
from harness.tunnels import FAR, REMOTE, esp_keys, to_far, tunnel, turned
from harness.waiting import within

pytestmark = pytest.mark.sag

CHARON, SWANCTL = shutil.which("charon-systemd", path="/usr/sbin:/usr/bin"), shutil.which("swanctl")
ESP = {"probe_interval": 0, "udp_encap": True, "keepalive": 0}


class Charon:
    """strongSwan in a namespace. Without children: not every kernel has a transform for ESP."""

    def __init__(self, ns, folder, own, peer):
        self.ns, self.folder, self.uri = ns, folder, f"unix://{folder}/vici"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "strongswan.conf").write_text(f"""
charon-systemd {{
  load = random nonce aes sha1 sha2 hmac kdf gmp drbg vici socket-default kernel-netlink
  install_routes = no
  install_virtual_ip = no
  retransmit_timeout = 0.5
  plugins {{ vici {{ socket = {self.uri} }} }}
}}
""")
        (folder / "swanctl.conf").write_text(f"""
connections {{ branch {{
  version = 2
  local_addrs = {own[1]}
  remote_addrs = {peer[1]}
  local_port = 4500
  remote_port = 4500
  proposals = aes128-sha256-modp2048
  childless = force
  mobike = no
  encap = yes
  local {{ auth = psk
    id = {own[0]} }}
  remote {{ auth = psk
    id = {peer[0]} }}
}} }}
secrets {{ ike-1 {{ secret = "for a test" }} }}
""")
        log = open(folder / "log", "w", encoding="utf-8")
        self.process = ns.popen(["env", f"STRONGSWAN_CONF={folder}/strongswan.conf", CHARON], stdout=log)
        within(5, "charon loads its connection", self.load, self.tail)

    def load(self):
        return "loaded connection" in self.swanctl("--load-all", "--noprompt", "--file", self.folder / "swanctl.conf")

    def swanctl(self, *args):
        command = ["env", f"STRONGSWAN_CONF={self.folder}/strongswan.conf", SWANCTL, *args, "--uri", self.uri]
        return self.ns.run(command, check=False).stdout

    def sas(self):
        return self.swanctl("--list-sas")

    def tail(self):
        return (self.folder / "log").read_text()[-2000:]

    def close(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.mark.skipif(not (CHARON and SWANCTL), reason="strongSwan is not installed (charon-systemd, strongswan-swanctl)")
def test_ike_of_a_host_beside_the_tunnel_of_the_gateway(gw_with, far, lab):
    keys = esp_keys()
    gw_with(nat_config(tunnel("pop1", "esp", 4, **ESP, **keys) + to_far("pop1")))
    far.use(far.config("esp", 4, **ESP, **turned(keys)))
    within(10, "the tunnel carries packets", lambda: lab.lan1.ping(FAR[4], count=1, wait=1) == 1)
    answerer = Charon(lab.inet, lab.run_dir / "ike-peer", ("peer", "%any"), ("host", "%any"))
    try:
        asker = Charon(lab.lan1, lab.run_dir / "ike-host", ("host", A.LAN1[4]), ("peer", REMOTE[4]))
        try:
            asker.swanctl("--initiate", "--ike", "branch", "--timeout", 10)
            assert "ESTABLISHED" in asker.sas(), asker.tail() + answerer.tail()
            seen = answerer.sas()
            # As the peer sees the host: by the gateway's address, and a port that no tunnel uses.
            assert "ESTABLISHED" in seen, seen
            port = re.search(rf"remote\s+'host' @ {re.escape(A.GW_WAN[4])}\[(\d+)\]", seen)
            assert port and port[1] != "4500", seen
            assert lab.lan1.ping(FAR[4]) == 5, "the tunnel goes on"
            # Another exchange by the session that there is now.
            asker.swanctl("--rekey", "--ike", "branch", "--reauth")
            asker.swanctl("--terminate", "--ike", "branch", "--timeout", 5)
            within(5, "the peer hears of the end", lambda: "ESTABLISHED" not in answerer.sas(), answerer.tail)
            assert lab.lan1.ping(FAR[4]) == 5
        finally:
            asker.close()
    finally:
        answerer.close()
        far.stop()
