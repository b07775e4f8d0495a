"""How long until the command answers?

Command:  python benchmarks/startup.py                  (seconds)
Expected: `import whichcar` and `whichcar --help` under 0.3 s; the answer for one photo, by the model that comes with
          whichcar and with the vehicle found, within 1.1 s.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print("\nTime to start\n\n| | seconds | times an empty Python |\n|---|---:|---:|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / medians['python -c pass']:.1f} |")


if __name__ == "__main__":
    main()
