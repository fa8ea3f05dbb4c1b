"""Settings: parsing, messages, and their way through sudo into a script."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from lab import LabError
from lab.experiments import EXPERIMENTS, Bench, Compare, Paper
from lab.settings import Experiment, from_environment, parse, rule_of, rules

SCRIPTS = Path(__file__).parents[2]

# A script like those beside the package, which becomes root by way of a sudo that keeps nothing of the
# environment, and then prints its variables.
SCRIPT = """
set -euo pipefail
source "{scripts}/lib/processes.sh"
is_root() {{ [[ -n ${{ROOT_NOW:-}} ]]; }}
{call} {experiment} "$@"
become_root "$@"
for name in "${{SETTINGS[@]}}"; do printf '%s=%s\\n' "$name" "${{!name}}"; done
"""
SUDO = """#!/bin/bash
[[ $1 != -n ]] || exit 0
shift
exec env -i ROOT_NOW=1 "$@"
"""


def other_value(kind: type[Experiment], name: str) -> str:
    """A valid text of the setting that isn't its default."""
    if name == "cells":
        return "100mbit"
    one, hint = rules(kind)[name]
    rule = rule_of(one)
    if rule.choices:
        usual = one.default[0] if isinstance(one.default, tuple) and one.default else one.default
        return next(choice for choice in rule.choices if choice != usual)
    return "1" if hint is bool else "777" if "int" in str(hint) and rule.most != 250 else "77"


def other_environment(kind: type[Experiment]) -> dict[str, str]:
    """Variables for every setting that the environment can set."""
    every = {name.upper(): other_value(kind, name) for name in rules(kind)}
    return {name: text for name, text in every.items() if name.lower() in from_environment(kind, every)}


def call_in(experiment: str) -> str | None:
    """The function by which the script makes its settings."""
    text = (SCRIPTS / f"{experiment}.sh").read_text()
    found = re.search(rf'\n *(settings|cells) {experiment}( "\$@")?\n', text)
    return found and found[1]


class Parsing(unittest.TestCase):
    def test_options_go_before_the_environment(self) -> None:
        made = parse(Compare, ["--rounds", "2"], {"ROUNDS": "7", "DEVICE": "plain"})
        self.assertEqual((made.rounds, made.device), (2, "plain"))

    def test_lists_take_spaces_and_commas(self) -> None:
        self.assertEqual(parse(Bench, [], {"COUNTS": "10,20 30"}).counts, (10, 20, 30))

    def test_words_that_are_left_are_the_parts(self) -> None:
        made = parse(Paper, ["memory", "--quick", "failover"], {})
        self.assertEqual((made.parts, made.quick), (("memory", "failover"), True))

    def test_a_variable_of_a_flag_is_no_flag(self) -> None:
        self.assertFalse(parse(Compare, [], {"LIST": "1"}).list)

    def test_messages(self) -> None:
        cases: list[tuple[type[Experiment], list[str], dict[str, str], str]] = [
            (Bench, [], {"ROUNDS": "x"}, "ROUNDS takes a whole number of at least 1, not 'x'"),
            (Bench, [], {"ROUNDS": "0"}, "ROUNDS takes a whole number of at least 1, not '0'"),
            (Bench, [], {"LINKS": "on fast"}, "LINKS is one of on, off, forwarding, plain, not 'fast'"),
            (Bench, ["speed"], {}, "parts is one of requests, throughput, queues, connections, not 'speed'"),
            (Compare, ["--rounds"], {}, "--rounds needs a value"),
            (Compare, ["--round", "1"], {}, "no option '--round': see --help"),
            (EXPERIMENTS["failover-fleet"], [], {"TRANSFERS": "251"}, "from 1 to 250, not '251'"),
        ]
        for kind, words, environment, message in cases:
            with self.subTest(message), self.assertRaises(LabError) as raised:
                parse(kind, words, environment)
            self.assertIn(message, str(raised.exception))


class ThroughSudo(unittest.TestCase):
    def after_sudo(self, experiment: str, environment: dict[str, str]) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            script, sudo = Path(folder) / "script.sh", Path(folder) / "sudo"
            script.write_text(SCRIPT.format(scripts=SCRIPTS, call=call_in(experiment), experiment=experiment))
            sudo.write_text(SUDO)
            sudo.chmod(0o755)
            path = f"{folder}:{os.environ['PATH']}"
            ran = subprocess.run(
                ["bash", script], env=environment | {"PATH": path}, capture_output=True, text=True, check=True
            )
        return dict(line.split("=", 1) for line in ran.stdout.splitlines())

    def test_every_setting_survives(self) -> None:
        for name, kind in EXPERIMENTS.items():
            environment = other_environment(kind)
            with self.subTest(name):
                found = self.after_sudo(name, environment)
                self.assertEqual(found, parse(kind, [], environment).values())
                for variable, text in environment.items():
                    self.assertEqual(found[variable], text)


class Scripts(unittest.TestCase):
    def test_scripts_ask_for_their_own_settings(self) -> None:
        for name in EXPERIMENTS:
            self.assertIsNotNone(call_in(name), name)

    def test_no_script_has_a_default_of_its_own(self) -> None:
        names: set[str] = {name.upper() for kind in EXPERIMENTS.values() for name in rules(kind)}
        default: re.Pattern[Any] = re.compile(r"\$\{(\w+):-")
        for path in SCRIPTS.glob("*.sh"):
            found = names.intersection(default.findall(path.read_text()))
            self.assertEqual(found, set(), path.name)


if __name__ == "__main__":
    unittest.main()
