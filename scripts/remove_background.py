#!/usr/bin/env python3
"""Crop every image of a tree to its vehicle: the same as `whichcar crop`.

python scripts/remove_background.py DATA_FOLDER OUTPUT
"""

import sys

from whichcar.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["crop", *sys.argv[1:]]))
