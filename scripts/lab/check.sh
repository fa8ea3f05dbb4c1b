#!/usr/bin/env bash
#
# Lints, type-checks and tests this package, and the example in Python: ruff and mypy in the versions of requirements.txt, in an
# environment below target/ that is made when it is missing or of other versions. Part of `make check`.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly TOOLS=target/lab-tools WANTED=scripts/lab/requirements.txt

if ! cmp -s "$WANTED" "$TOOLS/requirements.txt"; then
    rm -rf -- "$TOOLS"
    python3 -m venv "$TOOLS"
    "$TOOLS/bin/pip" install --quiet --disable-pip-version-check --requirement "$WANTED"
    cp "$WANTED" "$TOOLS/requirements.txt"
fi
readonly OTHERS=(--config scripts/lab/ruff.toml examples/client.py)
"$TOOLS/bin/ruff" check --quiet scripts/lab
"$TOOLS/bin/ruff" check --quiet "${OTHERS[@]}"
"$TOOLS/bin/ruff" format --check --quiet scripts/lab
"$TOOLS/bin/ruff" format --check --quiet "${OTHERS[@]}"
"$TOOLS/bin/mypy" --config-file scripts/lab/mypy.ini --cache-dir "$TOOLS/mypy-cache" scripts/lab examples/client.py
PYTHONPATH=scripts python3 -B -m unittest discover --quiet --start-directory scripts/lab --top-level-directory scripts
