#!/usr/bin/env python3
"""Fetch the data set: the same as `whichcar fetch`. Without arguments it fetches what WHICHCAR_SOURCE lists.

WHICHCAR_SOURCE="s3://BUCKET/car_ims.tgz s3://BUCKET/car_dataset_labels.csv" python scripts/get_dataset.py
"""

import sys

from whichcar.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["fetch", *sys.argv[1:]]))
