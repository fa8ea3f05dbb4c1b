#!/usr/bin/env bash
#
# The measuring package from the command line, whatever the current directory is:
#
#   lab.sh settings EXPERIMENT [ARGUMENT...]     its settings, as lines NAME='VALUE'
#   lab.sh traces lte|wifi                       a rate that varies, for `headwater link --rate-trace`
#   lab.sh probe NAME [ARGUMENT...]              an instrument; without arguments, how to call it
#   lab.sh report NAME [ARGUMENT...]             tables, pages and pictures of measurements
#
# scripts/lab/__init__.py describes it.
PYTHONPATH=$(dirname "$(realpath "${BASH_SOURCE[0]}")") exec python3 -B -m lab "$@"
