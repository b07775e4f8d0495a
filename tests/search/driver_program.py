"""The command `whichcar` whose trials are the trial program, also in the slots of `--ray`."""

import sys
from pathlib import Path

from whichcar.cli import main
from whichcar.search import driver, launcher

TRIAL = str(Path(__file__).with_name("trial_program.py"))

driver.LocalLauncher = lambda: launcher.LocalLauncher(lambda config: [sys.executable, TRIAL, str(config)])  # type: ignore[misc,assignment]
driver.WHICHCAR = (__file__,)  # type: ignore[attr-defined,assignment]

if __name__ == "__main__":
    sys.exit(main.run(sys.argv[1:]))
