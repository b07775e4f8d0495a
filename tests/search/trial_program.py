"""A trial that takes half a second: trains nothing, but writes to its folder as `whichcar train --resume` does.

Each epoch's accuracy grows and is larger for less dropout. `data.directory` names the way it fails, if it does.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

import yaml

from whichcar.training.run.history import Epoch, read_history, write_history


def main() -> None:
    config = Path(sys.argv[1])
    settings, folder = yaml.safe_load(config.read_text()), config.parent
    (folder / "state").mkdir(exist_ok=True)
    lock = (folder / "state" / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    dropout, failure = settings["model"]["dropout_rate"], settings["data"]["directory"]
    history = list(read_history(folder / "history.csv")) if (folder / "history.csv").exists() else []
    with (folder / "starts.txt").open("a") as starts:
        starts.write(f"{len(history)}\n")
    if failure == "crash" and dropout < 0.3:
        sys.stderr.write(f"epoch 1\nerror: {folder}: the loss became nan in epoch 1, batch {dropout * 100:.0f}\n")
        sys.exit(2)
    if failure == "abort":
        os.abort()
    if failure == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    for number in range(len(history) + 1, settings["fit"]["epochs"] + 1):
        time.sleep(float(settings["hardware"]["save_minutes"]))
        if asked:
            (folder / "asked.txt").write_text("".join(f"{number}\n" for number in asked))
            sys.exit(130)
        accuracy = float("nan") if failure == "nan" else number / (number + 1) * (1 - dropout)
        history.append(Epoch(number, 1.0, 0.5, 1.0, accuracy, 0.1, "32x32", 1.0, 1.0, ""))
        write_history(folder / "history.csv", history)
        if failure == "full" and number == 1:
            (folder / "state" / "state.npz").touch()
            sys.stderr.write(f"error: {folder}: the disk is full; what was saved is untouched: make room and resume\n")
            sys.exit(2)
    (folder / "model.h5").touch()
    best = max(history, key=lambda epoch: epoch.val_accuracy)
    (folder / "best.json").write_text(json.dumps({"val_loss": best.val_loss, "val_accuracy": best.val_accuracy}))
    (folder / "resolved.json").write_text(json.dumps({"finished": True}))


if __name__ == "__main__":
    main()
