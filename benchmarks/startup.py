"""How long until the command answers?

Command:  python benchmarks/startup.py                  (seconds)
Expected: `import whichcar` and `whichcar --help` under 0.3 s; the answer for one photo, by the model that comes with
          whichcar and with the vehicle found, within 0.5 s on a fast host, 1 s on a slow one.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from _measure import seconds_in_turns

ROUNDS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import whichcar": [sys.executable, "-c", "import whichcar"],
    "whichcar --help": [sys.executable, "-m", "whichcar", "--help"],
}


def main() -> None:
    from whichcar.inference.released import DEFAULT, released
    from whichcar.synthetic.draw import draw

    scratch = tempfile.TemporaryDirectory()
    if DEFAULT in released():
        draw(Path(scratch.name), classes=2, per_class=2)
        photo = next((Path(scratch.name) / "car_ims").iterdir())
        COMMANDS["whichcar predict photo.jpg"] = [sys.executable, "-m", "whichcar", "predict", str(photo)]
    runs = {name: partial(subprocess.run, words, check=True, capture_output=True) for name, words in COMMANDS.items()}
    medians = seconds_in_turns(runs, ROUNDS, warm_up=0)
    print("\nTime to start\n\n| | seconds | times an empty Python |\n|---|---:|---:|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians['python -c pass']:.1f} |")


if __name__ == "__main__":
    main()
