"""What runs in a guest for the tests: takes commands from the host, one JSON object a line, and answers likewise.

It is a program of one file, of the standard library alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from typing import Any, BinaryIO

PORT = "/dev/virtio-ports/sag.bed"


def execute(shell: str, timeout: float) -> dict[str, Any]:
    child = subprocess.Popen(
        ["/bin/sh", "-c", shell], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    late = False
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        late = True
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
    return {"code": child.returncode, "out": out.decode(errors="replace"), "err": err.decode(errors="replace"), "late": late}


def serve(port: BinaryIO) -> None:
    lock = threading.Lock()

    def answer(message: dict[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        with lock:
            # The queue of the port holds less than a long answer.
            while line:
                line = line[port.write(line) :]

    def one(asked: dict[str, Any]) -> None:
        answer({"id": asked["id"], **execute(asked["shell"], asked["timeout"])})

    answer({"hello": os.uname().release})
    rest = b""
    while True:
        got = port.read(65536)
        if not got:
            # Nobody is at the other end yet.
            time.sleep(0.2)
        rest += got
        *lines, rest = rest.split(b"\n")
        for line in lines:
            if line:
                threading.Thread(target=one, args=[json.loads(line)], daemon=True).start()


if __name__ == "__main__":
    with open(PORT, "r+b", buffering=0) as port:
        serve(port)
