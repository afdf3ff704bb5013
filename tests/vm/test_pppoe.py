"""A line to the Internet by PPPoE, set by the cloud API: pppd and the kernel's PPP against rp-pppoe's access concentrator."""

import json
import socket
import time
from pathlib import Path

import pytest

from bed.site import GW_WAN, Cloud, connect, echoes
from harness.cloud import ORDER
from harness.waiting import within

DEVICE, PORT = "line", "ppp-line"
CONCENTRATOR, SUBSCRIBER, SERVER = "203.0.113.1", "203.0.113.64", "203.0.113.10"
ECHO_PORT, MSS_PORT = 7001, 7002
MTU = 1492
USER, PASSWORD = "P12ppp123", "hunter2hunter2"
AS_CLOUD = (
    "systemd-run --quiet --pipe --wait -p DynamicUser=yes -p User=sag-cloud -p StateDirectory=sag-cloud "
    "-p StateDirectoryMode=0700 -p UMask=0077"
)
# The concentrator is a namespace of the guest; its pppd looks for options and secrets where every pppd does.
SECRETS = f'"{USER}" * "{PASSWORD}" *\n'
OPTIONS = f"auth\nrequire-chap\nlcp-echo-interval 10\nlcp-echo-failure 3\nmtu {MTU}\nmru {MTU}\nnodefaultroute\n"
START = f"""
ip netns add ac
ip link add {DEVICE} type veth peer name ac0 netns ac
ip link set {DEVICE} up
ip -n ac link set lo up
ip -n ac link set ac0 up
ip -n ac addr add {SERVER}/32 dev lo
systemd-run --quiet --unit ac-server ip netns exec ac python3 /opt/sag-bed/concentrator.py {SERVER}
"""
ACCEPT = (
    f"systemd-run --quiet --unit ac ip netns exec ac pppoe-server -F -I ac0 -L {CONCENTRATOR} -R {SUBSCRIBER} -N 32"
    " -O /etc/ppp/concentrator"
)


class Line:
    """The line, as the gateway and the cloud see it."""

    def __init__(self, guest, site, cloud, sag, sn):
        self.guest, self.site, self.cloud = guest, site, cloud
        self.device = {"SmartAGId": sag, "SmartAGSn": sn}

    def modify(self, password=PASSWORD, **keys):
        keys = keys or {"IPType": "PPPOE", "Username": USER, "Password": password}
        self.cloud.call("ModifySagWan", PortName="0", **keys, **self.device)

    def state(self):
        """What the service says; one that was killed says nothing for a moment."""
        done = self.guest.run("sagctl --json routing", check=False)
        lines = json.loads(done.out)["Pppoe"] if done.code == 0 else []
        return lines[0] if lines else {"Up": False, "Problem": "no line", "Sessions": 0, "NextAttempt": None}

    def is_up(self):
        return self.state()["Up"] and self.reaches()

    def reaches(self):
        try:
            with connect(self.site.lan, 4, (SERVER, ECHO_PORT), timeout=4) as sock:
                return echoes(sock, b"through")
        except OSError:
            return False

    def wait_up(self, seconds=90):
        return within(seconds, "the line is up", self.is_up, lambda: f"{self.state()}\n{self.said()}")

    def wan(self):
        """What the cloud says of the line."""
        return next(w for w in self.cloud.call("DescribeSagWanList", **self.device)["Wans"] if w["PortName"] == "0")

    def deviations(self):
        return [f"{d['object']}: {d['reason']}" for d in self.guest.ctl("status")["deviations"]]

    def clients(self):
        """Processes of pppd that dial."""
        return self.guest.out("pgrep -f '^/usr/sbin/pppd file /run/sag-routing' || true").split()

    def concentrators(self):
        """Those that answer."""
        return self.guest.out("ip netns pids ac | xargs -r -n1 sh -c 'grep -lx pppd /proc/$0/comm' | cut -d/ -f3").split()

    def defaults(self):
        return [r for r in self.guest.json("ip -j route show default") if r["dev"] == PORT]

    def said(self):
        return self.guest.journal("sag-routing", 40)


@pytest.fixture(scope="module")
def line(gateway, site):
    """The guest, its agent and its cloud; the port of the Internet is a line to the concentrator."""
    guest = gateway
    if guest.run("modprobe -n pppoe", check=False).code:
        pytest.skip("this kernel has no PPPoE")
    guest.write("/etc/ppp/concentrator", OPTIONS)
    guest.write("/etc/ppp/chap-secrets", SECRETS)
    guest.write("/opt/sag-bed/concentrator.py", (Path(__file__).parent / "bed" / "concentrator.py").read_text())
    guest.run(f"chmod 600 /etc/ppp/chap-secrets\n{START}{ACCEPT}")
    guest.run("systemctl start sag-cloud", timeout=240)
    out = guest.out(f"{AS_CLOUD} sag-cloud access-key create --name pppoe --db sqlite:///var/lib/sag-cloud/cloud.db")
    cloud = Cloud(guest, [each.split(": ")[1] for each in out.splitlines()])
    sag = cloud.call("CreateSmartAccessGateway", **ORDER)["SmartAGId"]
    cloud.call("ActivateSmartAccessGateway", SmartAGId=sag)
    sn = cloud.call("DescribeSmartAccessGatewayAttribute", SmartAGId=sag)["Devices"]["Device"][0]["SerialNumber"]
    keys = {
        "endpoint": "http://127.0.0.1:8180", "region_id": "cn-shanghai", "smart_ag_id": sag, "smart_ag_sn": sn,
        "access_key_file": "/etc/sag/access-key", "base_config": "/etc/sag/vcpe.toml", "dhcp_client": "off",
        "state_dir": "/var/lib/sag-agent/pppoe", "report_interval": 1,
    }  # fmt: skip
    ports = f'[ports]\n"0" = {{ device = "{DEVICE}" }}\n"1" = {{ device = "lan" }}\n'
    guest.write("/etc/sag/agent.toml", "".join(f"{k} = {json.dumps(v)}\n" for k, v in keys.items()) + ports)
    key_id, secret = cloud.key
    guest.write("/etc/sag/access-key", f"AccessKeyId: {key_id}\nAccessKeySecret: {secret}\n")
    guest.run("chown sag:sag /etc/sag/access-key /etc/sag/agent.toml; chmod 600 /etc/sag/access-key /etc/sag/agent.toml")
    # The machine's own way out is not what is tested.
    guest.run("ip route del default; systemctl start sag-routing sag-agent", timeout=240)
    able = lambda: guest.ctl("routing")["Installed"]["Pppoe"]
    within(60, "the service can dial", able, lambda: guest.ctl("routing")["Installed"])
    it = Line(guest, site, cloud, sag, sn)
    about = lambda: cloud.call("DescribeSAGDeviceInfo", **it.device)["SynStatus"]
    within(120, "the device has reported", lambda: about() == "Synchronized", lambda: guest.journal("sag-agent"))
    asked = dict(OpenApiName="ModifySagWan", SmartAGId=sag, SerialNumber=sn)
    lacking = lambda: [f["Feature"] for f in cloud.call("ListSmartAGApiUnsupportedFeature", **asked)["Features"]]
    within(60, "the device says so", lambda: "Pppoe" not in lacking(), lambda: guest.journal("sag-agent"))
    cloud.call("ModifySagWanSnat", Snat="ENABLE", **it.device)
    yield it
    guest.run("systemctl stop sag-agent sag-routing sag-cloud ac ac-server; pkill -x pppoe-server; ip netns del ac", check=False)
    guest.run("rm -rf /etc/sag/agent.toml /var/lib/sag-agent/pppoe; ip link del line; networkctl reload", check=False)
    guest.run("systemctl restart systemd-networkd sag-vcpe", timeout=240)


@pytest.fixture(scope="module")
def up(line):
    line.modify()
    line.wait_up()
    return line


def test_the_port_has_what_the_session_gives(up):
    guest = up.guest
    shown = guest.json(f"ip -j addr show {PORT}")[0]
    assert shown["mtu"] == MTU
    assert {"local": SUBSCRIBER, "address": CONCENTRATOR} in [
        {k: a.get(k) for k in ("local", "address")} for a in shown["addr_info"] if a["family"] == "inet"
    ]
    assert [(r["gateway"], r["metric"]) for r in up.defaults()] == [(CONCENTRATOR, 10)]
    port = next(p for p in guest.ctl("ports")["ports"] if p["name"] == "0")
    assert (port["device"], port["up"], port["xdp_mode"]) == (PORT, True, "native"), port
    wan = up.wan()
    told = (wan["IPType"], wan["IP"], wan["Gateway"], wan["TrafficState"])
    assert told == ("PPPOE", SUBSCRIBER, CONCENTRATOR, "Normal"), wan
    assert not [d for d in up.deviations() if "PPPoE" in d]


def test_the_password_is_not_to_be_seen(up):
    guest = up.guest
    assert PASSWORD not in guest.out("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    for unit in ("sag-routing", "sag-agent", "sag-vcpe"):
        assert PASSWORD not in guest.journal(unit, 2000)
    files = guest.out("stat -c '%a %U' /run/sag-routing/*/pppoe-*.conf").split()
    assert files == ["600", "root"]


def test_it_is_confined(up):
    refused = [line for line in up.guest.refusals() if "pppd" in line or "sag-agent" in line]
    assert not refused, refused


def test_established_flows_go_by_xdp(up):
    before = up.guest.ctl("status")["fastpath_packets"]
    with connect(up.site.lan, 4, (SERVER, ECHO_PORT)) as sock:
        for size in (1, 1400, 300_000):
            assert echoes(sock, bytes(size))
    within(10, "XDP forwards", lambda: up.guest.ctl("status")["fastpath_packets"] > before + 100)


def test_the_mtu_is_that_of_the_session(up):
    lan = up.site.lan
    assert lan.ping(SERVER, count=2, options=["-M", "do", "-s", MTU - 28], wait=5) == 2
    said = lan.out(["ping", "-n", "-M", "do", "-c", 1, "-W", 3, "-s", MTU - 27, SERVER], check=False)
    assert f"mtu = {MTU}" in said or f"mtu={MTU}" in said, said
    lan.ip("route flush cache")


def test_connections_ask_for_segments_that_fit(up):
    fits = MTU - 40 - 12
    with connect(up.site.lan, 4, (SERVER, MSS_PORT)) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) == fits
        assert int(sock.makefile().readline()) == fits


def test_a_session_that_the_other_end_closes_is_dialed_again(up):
    sessions = up.state()["Sessions"]
    up.guest.run(["kill", *up.concentrators()])
    within(30, "it is noticed", lambda: up.state()["Sessions"] > sessions or not up.state()["Up"])
    up.wait_up()
    assert up.state()["Sessions"] == sessions + 1
    assert len(up.clients()) == 1 and len(up.defaults()) == 1


def test_a_concentrator_that_is_silent_is_noticed(up):
    sessions = up.state()["Sessions"]
    stopped = up.concentrators()
    up.guest.run(["kill", "-STOP", *stopped])
    try:
        took = within(60, "echo requests stay unanswered", lambda: not up.state()["Up"], up.said)
        assert took > 5
        # Another process takes the next call.
        up.wait_up()
    finally:
        up.guest.run(["kill", "-KILL", *stopped])
    assert up.state()["Sessions"] == sessions + 1
    assert len(up.clients()) == 1 and len(up.defaults()) == 1


@pytest.mark.parametrize("who", ["pppd", "sag-routing", "sag-agent"])
def test_whoever_is_killed_comes_back(up, who):
    guest = up.guest
    clients = up.clients()
    pids = clients if who == "pppd" else [guest.unit(who)["MainPID"]]
    before = up.state()["Sessions"]
    guest.run(["kill", "-KILL", *pids])
    if who == "sag-agent":
        # The session is the service's.
        assert up.reaches()
    else:
        noticed = lambda: up.clients() not in ([], clients) or up.state()["Sessions"] != before
        within(60, "it was noticed", noticed, up.said)
    up.wait_up()
    assert len(up.clients()) == 1 and len(up.defaults()) == 1
    names = [link["ifname"] for link in guest.json("ip -j link show") if link["ifname"].startswith("pp")]
    assert sorted(names) == ["ppl-line", "ppp-line", "pps-line"]


def test_a_line_without_carrier_is_none(up):
    up.guest.run("ip -n ac link set ac0 down")
    try:
        within(10, "the port is down", lambda: not up.state()["Up"])
        within(10, "the cloud knows", lambda: up.wan()["TrafficState"] == "Abnormal", up.wan)
        within(10, "it is named", lambda: any("no carrier" in d for d in up.deviations()), up.deviations)
    finally:
        up.guest.run("ip -n ac link set ac0 up")
    up.wait_up()
    within(10, "the cloud knows", lambda: up.wan()["TrafficState"] == "Normal", up.wan)


def test_a_wrong_password_is_named_and_not_repeated_all_the_time(up):
    up.modify(password="hunter3hunter3")
    refused = lambda: any("refuses user name and password" in d for d in up.deviations())
    within(60, "it is named", refused, lambda: (up.deviations(), up.said()))
    assert up.wan()["TrafficState"] == "Abnormal" and not up.defaults()
    wait = up.state()["NextAttempt"]
    assert wait is not None and 5 <= wait <= 15, up.state()
    # The rest of the revision is in force.
    up.cloud.call("ModifySagWanSnat", Snat="DISABLE", **up.device)
    snat = lambda: next(p for p in up.guest.ctl("config", "show")["text"].split("[[port]]") if PORT in p)
    within(20, "other changes take effect", lambda: "snat = true" not in snat())
    up.cloud.call("ModifySagWanSnat", Snat="ENABLE", **up.device)
    up.modify()
    begun = time.monotonic()
    up.wait_up()
    # The pause of the wrong one was not waited for.
    assert time.monotonic() - begun < 60


def test_its_opposite_takes_all_away(up):
    up.modify(IPType="STATIC", IP=GW_WAN[4], Mask="255.255.255.0", Gateway="198.51.100.1")
    gone = lambda: not up.clients() and not up.defaults() and "ppp-line" not in up.guest.out("ip -o link show")
    within(30, "devices and pppd are gone", gone, up.said)
    assert up.guest.run("ls /run/sag-routing/*/pppoe-*", check=False).code != 0
    port = lambda: next(p for p in up.guest.ctl("ports")["ports"] if p["name"] == "0")
    within(10, "the port is the Ethernet device again", lambda: port()["device"] == DEVICE and port()["up"])
    assert GW_WAN[4] in up.guest.out(f"ip -br addr show {DEVICE}")
    # And again.
    up.modify()
    up.wait_up()
