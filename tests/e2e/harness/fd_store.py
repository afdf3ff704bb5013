"""A service manager as far as its store of descriptors goes (sd_pid_notify_with_fds(3)): it keeps what the gateway gives
it, and hands it to the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .waiting import within

if TYPE_CHECKING:
    from .lab import Gateway

# Above the numbers under which descriptors are handed over.
FIRST_FREE = 64
STARTS = 'export LISTEN_PID=$$; exec {redirections}; exec "$@"'


class ServiceManager:
    """Starts the gateway in its namespace."""

    def __init__(self, gw: Gateway, folder: Path) -> None:
        self.gw, self.path = gw, folder / "notify"
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        self.kept: list[tuple[str, int]] = []
        self.process: subprocess.Popen[Any] | None = None

    def names(self) -> list[str]:
        """What is kept now."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, fds, _, _ = socket.recv_fds(self.socket, 4096, 16)
                said = dict(line.split("=", 1) for line in data.decode().splitlines())
                if said.get("FDSTORE") == "1":
                    self.kept += [(said["FDNAME"], fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST_FREE)) for fd in fds]
                if said.get("FDSTOREREMOVE") == "1":
                    for _name, fd in (k for k in self.kept if k[0] == said["FDNAME"]):
                        os.close(fd)
                    self.kept = [k for k in self.kept if k[0] != said["FDNAME"]]
                for fd in fds:
                    os.close(fd)
        return [name for name, _ in self.kept]

    def start(self, config: str) -> None:
        names, lab = self.names(), self.gw.lab
        fds = [fd for _, fd in self.kept]
        self.gw.write_config(config)
        moves = " ".join(f"{3 + i}<&{fd} {fd}<&-" for i, fd in enumerate(fds))
        env = {**os.environ, "NOTIFY_SOCKET": str(self.path), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": ":".join(names)}
        command = ["bash", "-c", STARTS.format(redirections=moves), "bash", lab.vcpe, "run", "--config", lab.conf]
        with open(lab.log, "ab") as log:
            self.process = lab.gw.popen(command, stdout=log, stderr=log, pass_fds=fds, env=env)
        lab.pid_file.write_text(f"{self.process.pid}\n")
        within(15, "the gateway answers", self.answers, self.gw.tail)
        self.gw.running = config

    def answers(self) -> bool:
        done = subprocess.run([self.gw.lab.sagctl, "--socket", self.gw.lab.socket, "status"], capture_output=True)
        return done.returncode == 0

    def kill(self) -> None:
        """The gateway ends at once."""
        self.gw.kill()
        if self.process is not None:
            self.process.wait()

    def close(self) -> None:
        self.names()
        for _, fd in self.kept:
            os.close(fd)
        self.kept = []
        self.socket.close()
        self.path.unlink(missing_ok=True)
