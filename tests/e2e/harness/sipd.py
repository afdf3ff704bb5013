"""A SIP registrar over UDP, as small as one can be (RFC 3261 10.3, RFC 3581): it answers REGISTER and
OPTIONS where they came from, and prints a line for each: method, source address, source port.

usage: sipd.py ADDRESS PORT
"""

from __future__ import annotations

import re
import socket
import sys


def answer(text: str, source: tuple[str, int]) -> str:
    """The 200 for a request; its first Via says where the request came from (RFC 3581 4)."""
    lines = text.split("\r\n\r\n")[0].split("\r\n")
    copied = [line for line in lines[1:] if re.match(r"(?i)(via|v|from|f|to|t|call-id|i|cseq|contact|m) *:", line)]
    first = next(n for n, line in enumerate(copied) if re.match(r"(?i)(via|v) *:", line))
    via = re.sub(r"(?i);rport\b(=\d+)?", "", copied[first])
    copied[first] = f"{via};received={source[0]};rport={source[1]}"
    to = next(n for n, line in enumerate(copied) if re.match(r"(?i)(to|t) *:", line))
    if ";tag=" not in copied[to]:
        copied[to] += ";tag=lab"
    return "\r\n".join(["SIP/2.0 200 OK", *copied, "Expires: 60", "Content-Length: 0", "", ""])


def main() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, source = sock.recvfrom(65535)
        text = data.decode(errors="replace")
        method = text.split(" ", 1)[0]
        if method in ("REGISTER", "OPTIONS"):
            sock.sendto(answer(text, source).encode(), source)
            print(method, *source, flush=True)


if __name__ == "__main__":
    main()
