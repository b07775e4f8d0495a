#!/usr/bin/env python3
"""Train as a settings file says: the same as `whichcar train`.

python scripts/train.py CONFIG.yml
"""

import sys

from whichcar.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
