"""Clients of the services of a LAN: a DHCP client and a resolver, as they are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from .net import Namespace
from .routers import program


def resolve(ns: Namespace, server: str, name: str, *options: str) -> list[str]:
    """The addresses of a name, as dig is told them; none: no answer."""
    command = ["dig", "+short", "+tries=1", "+time=1", *options, f"@{server}", name]
    done = ns.run(command, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def ask(ns: Namespace, dev: str, folder: Path) -> tuple[subprocess.Popen[Any], Path]:
    """Starts a DHCP client that asks for a second and writes down what it is given, without using it."""
    out = folder / f"lease-{ns.name}"
    out.unlink(missing_ok=True)
    script = folder / "bound.sh"
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && env > "{folder}/lease-$NS"\nexit 0\n')
    script.chmod(0o755)
    client = program("udhcpc", "/sbin/udhcpc", "/usr/sbin/udhcpc")
    command = [client, "-i", dev, "-f", "-n", "-q", "-t", "1", "-T", "1", "-s", script]
    env = {**os.environ, "NS": ns.name}
    return ns.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env), out


def leased(ns: Namespace, dev: str, folder: Path) -> dict[str, str]:
    """What a DHCP server gives a client; nothing: no answer within a second."""
    client, out = ask(ns, dev, folder)
    client.wait(10)
    return dict(line.split("=", 1) for line in out.read_text().splitlines()) if out.exists() else {}
