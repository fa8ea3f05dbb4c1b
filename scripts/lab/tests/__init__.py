"""Tests of the package: `python3 -m unittest discover -s scripts -t scripts`."""
