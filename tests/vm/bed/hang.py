"""In a guest: stops one thread of a process until a signal ends it, as a debugger does. `hang.py TID`"""

from __future__ import annotations

import ctypes
import os
import sys

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000
EVENT_STOP = 128


def main() -> None:
    thread = int(sys.argv[1])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    while True:
        _, status = os.waitpid(thread, WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return
        if status >> 16 != EVENT_STOP:
            # A signal for the process: it takes effect, as it does on a thread that waits for ever.
            libc.ptrace(PTRACE_DETACH, thread, None, os.WSTOPSIG(status))
            return


if __name__ == "__main__":
    main()
