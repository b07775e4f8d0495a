"""How long until the command answers?

Command:  python benchmarks/startup.py                  (seconds)
Expected: `import whichcar` and `whichcar --help` under 0.3 s.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import whichcar": [sys.executable, "-c", "import whichcar"],
    "whichcar --help": [sys.executable, "-m", "whichcar", "--help"],
}


def main() -> None:
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
