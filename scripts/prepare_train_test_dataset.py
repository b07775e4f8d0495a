#!/usr/bin/env python3
"""Build OUTPUT/<subset>/<class>/ from images and their labels: the same as `whichcar split`.

python scripts/prepare_train_test_dataset.py DATA LABELS OUTPUT
"""

import sys

from whichcar.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["split", *sys.argv[1:]]))
