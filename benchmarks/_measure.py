"""Fair turns: each contender lives in a process of its own and steps only while the others rest."""

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence


def serve(step: Callable[[], int], warm_up: int) -> None:
    """Be a contender: after the warm-up, take as many steps as each line of standard input says.

    Args:
        step: does one step and returns how many images it took.
    """
    with contextlib.redirect_stdout(sys.stderr):
        for _ in range(warm_up):
            step()
    print("ready", flush=True)
    for line in sys.stdin:
        rates = []
        for _ in range(int(line)):
            start = time.perf_counter()
            count = step()
            rates.append(count / (time.perf_counter() - start))
        print(json.dumps(rates), flush=True)


def take_turns(
    contenders: Mapping[str, Sequence[str]], rounds: int, steps: int, environment: Mapping[str, str]
) -> dict[str, float]:
    """Run commands that `serve`, in turns, and return the median images/s of each."""
    running = {}
    for name, command in contenders.items():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        running[name] = subprocess.Popen(command, text=True, env=dict(environment), **pipes)
        if running[name].stdout.readline() != "ready\n":
            raise SystemExit(f"{name}: did not start; run by hand: {' '.join(command)}")
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, process in running.items():
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
            rates[name] += json.loads(process.stdout.readline())
    for process in running.values():
        process.stdin.close()
        process.wait()
    return {name: statistics.median(values) for name, values in rates.items()}


def seconds_in_turns(sides: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Run functions of this process in turns, and return the median seconds of each after `warm_up` rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_rates(title: str, rates: Mapping[str, float], reference: str) -> None:
    """Print a Markdown table of images/s and of each one's ratio to the reference."""
    print(f"\n{title}\n\n| | images/s | times {reference} |\n|---|---:|---:|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / rates[reference]:.2f} |")
