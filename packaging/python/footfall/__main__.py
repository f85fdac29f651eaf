"""Runs the binary `footfall` that was installed with this package, in place of this process."""

import os
import sys
from importlib.metadata import files
from pathlib import Path


def binary():
    """Returns the path of the binary, or None if it is missing."""
    recorded = [Path(file.locate()) for file in files("footfall") or [] if file.parent.name == "bin"]
    # `pip install --target` puts the binary elsewhere than it records.
    beside = Path(__file__).resolve().parent.parent / "bin" / "footfall"
    found = (path for path in [*recorded, beside] if path.name == "footfall" and path.is_file())
    return next(found, None)


def main():
    path = binary()
    if path is None:
        sys.exit("footfall: the binary of this package is missing; install the package again")
    os.execv(path, [str(path), *sys.argv[1:]])


main()
