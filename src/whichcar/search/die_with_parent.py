"""Exec another program that the kernel kills when the process that started it dies, however that happens.

It is run by path and imports little, because every trial starts with it:
`python -I -S die_with_parent.py PARENT CORES COMMAND...`, where CORES is a list of processor numbers such as `0,1`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # kept across exec, see prctl(2)


def main() -> None:
    """Tie this process to the lifetime of its parent and exec the command."""
    parent, cores, *command = sys.argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):  # the parent died before the call above
        sys.exit(1)
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
