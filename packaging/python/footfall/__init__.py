"""Footfall as a Python package: `python -m footfall` runs the binary that is installed with it."""
