"""pktgen as a process that answers trials."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .system import Failed


class Generator:
    """`pktgen serve` between two places of a lab, on one core and before all else there."""

    def __init__(self, binary: Path, tx: str, rx: str | None, core: int = 1, flows: int = 10_000, options: Sequence[Any] = ()) -> None:
        self.command = ["chrt", "-f", "10", str(binary), "serve", "--tx", tx]
        if rx:
            self.command += ["--rx", rx]
        self.command += ["--core", str(core), "--flows", str(flows), *map(str, options)]
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.flows = flows
        self.read()

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"pktgen: {self.process.stderr.read().strip()[-800:]} ({' '.join(self.command)})")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"pktgen: {answer['error']}")
        return answer

    def start(self, **trial: Any) -> None:
        """Starts a trial; read() waits for its result."""
        self.process.stdin.write(json.dumps(trial) + "\n")
        self.process.stdin.flush()

    def trial(self, **trial: Any) -> dict[str, Any]:
        self.start(**trial)
        return self.read()

    def count(self) -> int:
        """Frames that the sink has received since the last trial began, of all sources."""
        self.process.stdin.write('"count"\n')
        self.process.stdin.flush()
        return self.read()["received"]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        self.process.stdout.close()
        self.process.stderr.close()
