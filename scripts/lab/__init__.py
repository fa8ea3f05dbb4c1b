"""Measures, records and reports what the scripts beside this package arrange.

The scripts in bash make network namespaces, start servers and end them; everything about settings and
figures is here. It needs Python 3.11 and nothing but its standard library. From the outside in:

    experiments     the settings of each script: names, types, defaults, help
    settings        reads them from environment and options, checks them, hands them to bash
    cells           the links that compare.sh and friendliness.sh emulate, by name
    traces          rates that vary, drawn from a seed: the files in scripts/traces
    probes          instruments that run inside a namespace: samplers, downloads, echo servers
    measurements    makes records of what programs and probes have printed
    records         the one schema of a measurement, written and read as JSON lines
    figures         medians with ranges, verdicts with their bounds, numbers for people
    summaries       ratios and verdicts of records
    drawing         axes, charts and pages as SVG and HTML
    pages, reports  tables, pictures and pages
    tests           run by check.sh, beside ruff and mypy; part of `make check`

A measurement passes through them like this: `bench.sh` calls `settings bench`, which makes ROUNDS, SIZES, ...
variables of the script. It runs `headwater bench requests --stats FILE` in a namespace and calls `record
requests case=NAME`; `measurements.bench` turns the file into records, one for each round of a peer, and adds
them to `out/bench/results.jsonl`. At the end `report bench` prints the table of the newest run. A report can
be made again at any time from its records.

`scripts/lab.sh` is the command line from any directory; bash has the same as `settings`, `record` and `report`
of `scripts/lib`. To add a setting, add a field to its class in `experiments`. To add a figure, add it where its
record is made, with one of `records.UNITS`, and print it in the report. A new script needs a class in
`experiments`, a module of kinds in `measurements` and a module in `reports`, each named after the script.
"""


class LabError(Exception):
    """An input that cannot be used; the message names it and says what to do."""


class UsageError(Exception):
    """A module was called with other words than its docstring says."""
