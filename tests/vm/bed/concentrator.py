"""An access concentrator and the Internet behind it, in a namespace of a guest: pppoe-server, pppd, and servers of TCP.

    concentrator.py NAMESPACE-ADDRESS

What runs in the guest is a program of one file, of the standard library alone: it answers on TCP port 7001 with what it
gets, and on 7002 with the segment size that its peer has asked for.
"""

from __future__ import annotations

import socket
import sys
import threading

ECHO, MSS = 7001, 7002


def serve(address: str, port: int) -> None:
    listener = socket.create_server((address, port))
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=answer, args=[sock, port], daemon=True).start()


def answer(sock: socket.socket, port: int) -> None:
    with sock:
        if port == MSS:
            size = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
            sock.sendall(b"%d\n" % size)
            return
        while data := sock.recv(65536):
            sock.sendall(data)


if __name__ == "__main__":
    for each in (ECHO, MSS):
        threading.Thread(target=serve, args=[sys.argv[1], each]).start()
