"""Applications through NAT that carry addresses, open further connections or look at their path."""

import re
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from harness.lab import Addresses as A
from harness.nat import forward, nat_config
from harness.traffic import process, wait_listening

WAN, INET, LAN1, LAN2 = A.GW_WAN[4], A.INET[4], A.LAN1[4], A.LAN2[4]
PYTHON = "/usr/bin/python3"
FTP = "2121"
CONFIG = nat_config(
    forward("ftp", "tcp", FTP, (LAN2, FTP)),
    forward("ftp-data", "tcp", "30000/30019", (LAN2, "30000/30019")),
)

pytestmark = pytest.mark.sag


def needs(*tools):
    missing = [tool for tool in tools if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (scripts/setup.sh)")


def has_pyftpdlib():
    return subprocess.run([PYTHON, "-c", "import pyftpdlib"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def gw(gw_changed, hidden):
    return gw_changed(CONFIG)


# --- FTP: the passive mode -----------------------------------


@pytest.mark.skipif(not has_pyftpdlib(), reason="not installed: python3-pyftpdlib (scripts/setup.sh)")
@pytest.mark.parametrize("way", ["--ftp-pasv", "--disable-epsv"], ids=["epsv", "pasv"])
@pytest.mark.parametrize("where", ["outside", "forwarded"])
def test_ftp_passive(gw, lab, tmp_path, way, where):
    """A server outside; and one inside that is configured with its public address and whose ports are forwarded."""
    (tmp_path / "down.bin").write_bytes(bytes(range(256)) * 4000)
    (tmp_path / "up.bin").write_bytes(bytes(range(255, -1, -1)) * 4000)
    if where == "outside":
        server, own, client, public, options = lab.inet, INET, lab.lan1, INET, []
    else:
        server, own, client, public, options = lab.lan2, LAN2, lab.inet, WAN, ["--nat-address", WAN]
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(tmp_path / "down.bin", served)
    # An anonymous user may write into a folder of the test.
    served.chmod(0o777)
    command = [PYTHON, "-W", "ignore", "-m", "pyftpdlib", "-i", own, "-p", FTP, "-r", "30000-30019", "-w", "-d", served]
    with process(server, command + options, stdout=subprocess.DEVNULL):
        wait_listening(server, FTP)
        curl = ["curl", "-sS", "--max-time", 15, way]
        url = f"ftp://{public}:{FTP}/"
        assert "down.bin" in client.out([*curl, url])
        client.run([*curl, "-o", tmp_path / "got.bin", url + "down.bin"])
        client.run([*curl, "-T", tmp_path / "up.bin", url])
    assert (tmp_path / "got.bin").read_bytes() == (tmp_path / "down.bin").read_bytes()
    assert (served / "up.bin").read_bytes() == (tmp_path / "up.bin").read_bytes()


# --- SIP: the answer says where the request came from, and calls come back to there --------------


@pytest.fixture
def registrar(lab):
    """The requests that it got: a list of (method, address, port)."""
    queries = []
    command = [PYTHON, Path(__file__).with_name("harness") / "sipd.py", INET, 5060]
    with process(lab.inet, command, stderr=subprocess.DEVNULL) as child:
        reader = threading.Thread(target=lambda: queries.extend(line.split() for line in child.stdout))
        reader.start()
        wait_listening(lab.inet, 5060, udp=True)
        yield queries
        child.terminate()
        reader.join(5)


def phone(lab, port, *options):
    """sipsak as a phone at `port` of lan1; what it says, answers included."""
    me = ["-H", LAN1, "-l", port, "-S", "-i", "-vvv"]
    return lab.lan1.out(["sipsak", *me, *options], timeout=15)


@needs("sipsak")
def test_sip_rport(gw, lab, registrar):
    """The Via of the answer has the outside address and port (RFC 3581); a keep-alive keeps both."""
    for _ in range(3):
        output = phone(lab, 5070, "-s", f"sip:lab@{INET}:5060")
        assert f"received={WAN};rport=5070" in output, output
    output = phone(lab, 5070, "-U", "-C", f"sip:phone@{LAN1}:5070", "-s", f"sip:phone@{INET}:5060")
    assert f"received={WAN};rport=5070" in output, output


@needs("sipsak", "sipp")
def test_sip_call_to_a_registered_phone(gw, lab, registrar, tmp_path):
    """The binding that the registration made lets calls in."""
    phone(lab, 5080, "-U", "-C", f"sip:phone@{LAN1}:5080", "-s", f"sip:phone@{INET}:5060")
    callee = ["sipp", "-sn", "uas", "-i", LAN1, "-p", 5080, "-nostdin", "-m", 2]
    with process(lab.lan1, callee, stdout=subprocess.DEVNULL, cwd=tmp_path) as child:
        wait_listening(lab.lan1, 5080, udp=True)
        calls(lab.inet, INET, 5090, f"{WAN}:5080", 2, tmp_path)
        assert child.wait(10) == 0


@needs("sipp")
def test_sip_calls_out(gw, lab, tmp_path):
    """Two phones on the same port call out at the same time."""
    callee = ["sipp", "-sn", "uas", "-i", INET, "-p", 5061, "-nostdin", "-m", 10]
    with process(lab.inet, callee, stdout=subprocess.DEVNULL, cwd=tmp_path) as child:
        wait_listening(lab.inet, 5061, udp=True)
        phones = [
            threading.Thread(target=calls, args=(ns, address, 5060, f"{INET}:5061", 5, tmp_path))
            for ns, address in ((lab.lan1, LAN1), (lab.lan2, LAN2))
        ]
        for one in phones:
            one.start()
        for one in phones:
            one.join()
        assert child.wait(10) == 0, "not all calls were completed"


def calls(ns, address, port, to, count, folder):
    """Calls of 0.1 s each, from invitation to BYE; the exit code says whether all went well."""
    command = ["sipp", "-sn", "uac", to, "-i", address, "-p", port, "-nostdin", "-m", count, "-r", 20, "-d", 100]
    ns.run([*command, "-timeout", 15], cwd=folder, timeout=30)


# --- QUIC ----------------------------------------------------------------------------------------


@pytest.fixture
def quic(lab, tmp_path):
    subject = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=lab", "-days", "2"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", *subject, *files], check=True, capture_output=True)
    (tmp_path / "www").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "www" / "page").write_bytes(bytes(range(256)) * 32768)
    command = ["gtlsserver", "-q", "-d", tmp_path / "www", INET, 4433, tmp_path / "key.pem", tmp_path / "cert.pem"]
    with process(lab.inet, command, stdout=subprocess.DEVNULL):
        wait_listening(lab.inet, 4433, udp=True)
        yield tmp_path


@needs("gtlsserver", "gtlsclient", "openssl")
@pytest.mark.parametrize("migrates", [False, True], ids=["still", "migrating"])
def test_quic(gw, lab, quic, migrates):
    """Eight megabytes; the migrating client continues from another port in the middle of them."""
    before = gw.ctl("sessions", "--dport", "4433", "--count")["total"]
    options = ["--change-local-addr=2ms"] if migrates else []
    get = ["gtlsclient", "-q", "--exit-on-all-streams-close", "--download", quic / "got", *options]
    lab.lan1.run([*get, INET, 4433, f"https://{INET}:4433/page"], timeout=30)
    assert (quic / "got" / "page").read_bytes() == (quic / "www" / "page").read_bytes()
    sessions = gw.ctl("sessions", "--dport", "4433", "--count")["total"] - before
    assert sessions == (2 if migrates else 1)


# --- DNS -----------------------------------------------------------------------------------------


def dns_answer(query, size):
    """A TXT record of about `size` bytes for any name."""
    name_end = 12
    while query[name_end]:
        name_end += 1 + query[name_end]
    question = query[12 : name_end + 5]
    text = b"".join(bytes([250]) + b"x" * 250 for _ in range(max(1, size // 251)))
    record = b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 60, len(text)) + text
    return query[:2] + struct.pack(">HHHHH", 0x8580, 1, 1, 0, 0) + question + record


@pytest.fixture
def resolver(lab, peers):
    """Answers on port 53, over UDP at any length, and over TCP."""
    udp, tcp = peers.udp(lab.inet, INET, 53, timeout=0.1), peers.listen(lab.inet, INET, 53, timeout=0.1)
    queries, stop = [], threading.Event()

    def serve():
        while not stop.is_set():
            try:
                query, client = udp.recvfrom(4096)
                udp.sendto(dns_answer(query, 3000 if b"big" in query else 20), client)
                queries.append(client)
            except TimeoutError:
                pass
            try:
                sock, client = tcp.accept()
            except TimeoutError:
                continue
            sock.settimeout(3)
            asked = sock.makefile("rb")
            length = struct.unpack(">H", asked.read(2))[0]
            answer = dns_answer(asked.read(length), 8000)
            sock.sendall(struct.pack(">H", len(answer)) + answer)
            sock.close()
            queries.append(client)

    thread = threading.Thread(target=serve)
    thread.start()
    yield queries
    stop.set()
    thread.join()


@needs("dig")
def test_dns(gw, lab, resolver):
    """Short answers, answers in fragments, and over TCP; of two hosts at once."""
    dig = ["dig", f"@{INET}", "+tries=1", "+time=5", "+noall", "+answer", "TXT"]
    children = [ns.popen([*dig, f"host{n}.example"]) for n in range(4) for ns in (lab.lan1, lab.lan2)]
    for child in children:
        output = child.communicate(timeout=15)[0]
        assert re.search(r"host\d\.example\.\s+60\s+IN\s+TXT", output), output
    big = lab.lan1.out([*dig, "+bufsize=4096", "+notcp", "+ignore", "big.example"])
    assert big.count("x" * 250) == 11, big
    tcp = lab.lan1.out([*dig, "+tcp", "any.example"])
    assert tcp.count("x" * 250) == 31, tcp
    assert len(resolver) == 10
    assert {address for address, _ in resolver} == {WAN}


# --- the path ------------------------------------------------------------------------------------


@needs("traceroute")
def test_traceroute_of_two_hosts_at_once(gw, lab):
    """Each host gets the errors about its own probes."""
    probes = [(ns, ns.popen(["traceroute", "-n", "-q", 3, "-w", 2, INET])) for ns in (lab.lan1, lab.lan2)]
    for ns, child in probes:
        output = child.communicate(timeout=20)[0]
        hops = re.findall(r"(?m)^\s*\d+\s+(\S+)", output)
        first = A.GW_LAN_A[4] if ns is lab.lan1 else A.GW_LAN_B[4]
        assert hops == [first, A.WAN_ROUTER[4], INET], output
        assert "*" not in output, output


@needs("traceroute")
def test_traceroute_to_a_forwarded_host(gw, lab):
    """From the Internet to a forwarded port: the host inside answers by the public address."""
    output = lab.inet.out(["traceroute", "-n", "-T", "-p", FTP, "-q", 1, "-w", 2, WAN])
    hops = re.findall(r"(?m)^\s*\d+\s+(\S+)", output)
    assert hops[0] == "203.0.113.1" and hops[-1] == WAN and "*" not in output, output
