"""The official SDK behind a pipe: one call a line in, one answer a line out.

Runs with the interpreter that has the SDK, in the namespace from which the calls shall come:
    sdk_shell.py HOST:PORT ACCESS_KEY_ID ACCESS_KEY_SECRET
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sdk"))

import clients


def main() -> None:
    endpoint, key_id, secret = sys.argv[1:]
    driver = clients.Acs3(endpoint, (key_id, secret), clients.Record())
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            # What the vendor does not have is signed by the SDK, but not modelled in it.
            call = driver.extension if request.get("extension") else driver.call
            answer = {"ok": call(request["op"], **request["params"])}
        except clients.ApiError as e:
            answer = {"code": e.code, "status": e.status, "message": str(e)}
        except Exception as e:  # pylint: disable=broad-except
            answer = {"code": type(e).__name__, "status": 0, "message": str(e)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
