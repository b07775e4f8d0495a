"""The `whichcar` command, also available as `python -m whichcar`.

Everything else is imported inside `main`, where Ctrl-C is already handled.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status: 0, 1 (check --fail-on), 2 (an error), or 130 (Ctrl-C)."""
    try:
        from whichcar.cli.main import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
