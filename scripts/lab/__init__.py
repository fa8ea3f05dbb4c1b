"""Measures, records and reports what the scripts beside this package arrange.

The scripts in bash make network namespaces, start servers and end them; everything about figures is
here. Python's standard library suffices to run it. From the outside in:

    settings        what an experiment can be asked for: names, types, defaults and help, once
    cells           the links that `compare.sh` and `friendliness.sh` emulate, by name
    probes          instruments that run inside a namespace: samplers, downloads, echo servers
    measurements    from what programs and probes have printed to records
    records         the one schema of a measurement, written and read as JSON lines
    figures         medians with ranges, verdicts with their bounds, numbers for people
    drawing         axes, charts and pages as SVG and HTML
    reports         tables, pictures and pages made of records
    tests           run by `make check`, beside ruff and mypy

`scripts/lab.sh` calls it: `lab.sh probe window`, `lab.sh report compare out/compare`. A report can be
made again at any time from the records it was made of.
"""


class LabError(Exception):
    """An input that cannot be used; the message names it and says what to do."""


class UsageError(Exception):
    """A probe or report was called with other words than its docstring says."""
