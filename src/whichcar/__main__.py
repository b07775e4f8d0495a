"""The `whichcar` command, also available as `python -m whichcar`.

Everything else is imported inside `main`, where Ctrl-C is already handled.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import math
import os
import signal
import sys
import threading
import time
from types import FrameType

_REPEATED = 5.0  # seconds


def main() -> None:
    """Run the command line and exit with its status: 0, 1 (check --fail-on) or 2 (an error).

    After Ctrl-C, SIGTERM or SIGHUP it ends by SIGINT, which a shell reports as status 130. A mere exit status of 130
    would not end the shell's loop or script.
    """
    try:
        _end_as_by_ctrl_c()
        from whichcar.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        if sys.stderr is not None:
            with contextlib.suppress(OSError):  # the terminal is gone
                sys.stderr.write("interrupted\n")
        status = 130
    if status == 130:
        sys.excepthook = lambda *_: None
        _leave_running_calls()
        raise KeyboardInterrupt  # Python exits with 130 where SIGINT ends nothing: as PID 1, or if it is blocked
    sys.exit(status)


def _leave_running_calls() -> None:
    """End by SIGINT now if threads are still at work, as after a second Ctrl-C.

    Python would wait for them, or end while one of them is in a library's code, which can be a crash.
    """
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def _end_as_by_ctrl_c() -> None:
    """Raise KeyboardInterrupt at SIGTERM and SIGHUP too, unless they are ignored, as SIGHUP is under `nohup`."""
    last = -math.inf

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        # `timeout` and a closed terminal send their signal twice; the second one must not stop the cleaning up.
        if now - last > _REPEATED:
            last = now
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)
            # A library may terminate a process that it forked, which must not print a traceback then.
            os.register_at_fork(after_in_child=functools.partial(signal.signal, number, signal.SIG_DFL))


if __name__ == "__main__":
    main()
