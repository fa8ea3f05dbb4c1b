"""Settings of experiments: declared once, read from environment and options, checked, handed to bash.

    lab.sh settings EXPERIMENT [ARGUMENT...]     prints NAME=VALUE lines
    lab.sh settings EXPERIMENT --help            what there is to set, with defaults

An experiment is a dataclass of `lab.experiments` whose fields are made by `setting`. A field `rounds` is
the variable ROUNDS in the environment and in bash; if it has an option, `--rounds N` goes before the
environment. Flags are options alone. One field may take the words that are left ("positional").

`scripts/lib/settings.sh` reads the lines; `become_root` passes every one of them through sudo.
"""

import dataclasses
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from lab import LabError

ROOT = Path(__file__).parents[2]

Made = TypeVar("Made", bound="Experiment")


@dataclass(frozen=True)
class Rule:
    """How one setting is named outside and which values it takes."""

    help: str
    option: str = ""
    positional: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


def setting(default: Any, help: str, **rule: Any) -> Any:
    """A field of an experiment; `rule` has the other fields of `Rule`."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True)
class Experiment:
    """What every experiment has."""

    # The file of the records in `out`.
    records: ClassVar[str] = "results.jsonl"

    headwater: str = setting(str(ROOT / "target/release/headwater"), "the program")

    def derived(self) -> dict[str, object]:
        """Further values that bash gets, made of the settings."""
        return {}

    def values(self) -> dict[str, str]:
        """All settings and what is derived from them, by their names in bash."""
        held = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)} | self.derived()
        if "out" in held:
            held["results"] = Path(held["out"]) / self.records
        return {name.upper(): shown(value) for name, value in held.items()}


def shown(value: object) -> str:
    """A value as bash has it: a list is separated by spaces, a flag is 1 or nothing."""
    match value:
        case bool():
            return "1" if value else ""
        case tuple() | list():
            return " ".join(map(shown, value))
        case float():
            return f"{value:g}"
    return str(value)


def rule_of(one: "dataclasses.Field[Any]") -> Rule:
    rule: Rule = one.metadata["rule"]
    return rule


def rules(kind: type[Experiment]) -> dict[str, tuple["dataclasses.Field[Any]", Any]]:
    """{name: (field, type)} of the settings of an experiment."""
    types = typing.get_type_hints(kind)
    return {one.name: (one, types[one.name]) for one in dataclasses.fields(kind)}


def converted(name: str, text: str, kind: Any, rule: Rule) -> Any:
    """The value of a text; `name` is that by which the user knows the setting."""
    if typing.get_origin(kind) is tuple:
        inner, _ = typing.get_args(kind)
        return tuple(converted(name, word, inner, rule) for word in text.replace(",", " ").split())
    if rule.choices and text not in rule.choices:
        raise LabError(f"{name} is one of {', '.join(rule.choices)}, not '{text}'")
    if "\n" in text:
        raise LabError(f"{name} takes a value of one line")
    if kind is str:
        return text
    if kind is bool:
        return text != ""
    try:
        value = kind(text)
    except ValueError:
        raise LabError(f"{name} takes {wanted(kind, rule)}, not '{text}'") from None
    if (rule.least is not None and value < rule.least) or (rule.most is not None and value > rule.most):
        raise LabError(f"{name} takes {wanted(kind, rule)}, not '{text}'")
    return value


def wanted(kind: Any, rule: Rule) -> str:
    """The values that a number may have, in words."""
    noun = "a whole number" if kind is int else "a number"
    match rule.least, rule.most:
        case None, None:
            return noun
        case least, None:
            return f"{noun} of at least {least:g}"
        case None, most:
            return f"{noun} of at most {most:g}"
        case least, most:
            return f"{noun} from {least:g} to {most:g}"


def from_words(kind: type[Experiment], words: Sequence[str]) -> dict[str, Any]:
    """The settings that options and words name."""
    known = rules(kind)
    by_option = {rule_of(one).option: name for name, (one, _) in known.items() if rule_of(one).option}
    rest = next((name for name, (one, _) in known.items() if rule_of(one).positional), None)
    found: dict[str, Any] = {}
    left: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word in by_option:
            name = by_option[word]
            if known[name][1] is bool:
                found[name] = True
                continue
            if not queue:
                raise LabError(f"{word} needs a value")
            found[name] = converted(word, queue.pop(0), known[name][1], rule_of(known[name][0]))
        elif word.startswith("-") or rest is None:
            raise LabError(f"no option '{word}': see --help")
        else:
            left.append(word)
    if rest is not None and left:
        one, hint = known[rest]
        found[rest] = converted(rest, " ".join(left), hint, rule_of(one))
    return found


def from_environment(kind: type[Experiment], environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that variables name; an empty variable is none."""
    found = {}
    for name, (one, hint) in rules(kind).items():
        rule, text = rule_of(one), environment.get(name.upper(), "")
        if text and not rule.positional and not (hint is bool and rule.option):
            found[name] = converted(name.upper(), text, hint, rule)
    return found


def parse(kind: type[Made], words: Sequence[str], environment: Mapping[str, str]) -> Made:
    """The experiment's settings; options go before the environment."""
    return kind(**(from_environment(kind, environment) | from_words(kind, words)))


def described(kind: type[Experiment]) -> str:
    """The help text: a line for each setting."""
    out = ["Settings, from the environment or by an option:", ""]
    for name, (one, _) in rules(kind).items():
        rule = rule_of(one)
        outside = f"[{name.upper()}]..." if rule.positional else name.upper()
        if rule.option:
            outside += f", {rule.option}"
        usual = shown(one.default) if one.default not in (MISSING, -1) else ""
        usual = usual.removeprefix(f"{ROOT}/")
        words = rule.help + (f" ({usual})" if usual else "")
        out.append(f"  {outside:<24} {words}")
        if rule.choices:
            out.append(f"  {'':<24} of {', '.join(rule.choices)}")
    return "\n".join(out)


def main(words: list[str]) -> None:
    from lab.experiments import EXPERIMENTS

    match words:
        case [name, *rest] if name in EXPERIMENTS:
            kind = EXPERIMENTS[name]
        case _:
            raise LabError(f"settings: the experiment is one of: {', '.join(EXPERIMENTS)}")
    if "--help" in rest:
        print(described(kind))
        return
    try:
        made = parse(kind, rest, os.environ)
    except LabError as error:
        raise LabError(f"{name}: {error}") from None
    for variable, value in made.values().items():
        print(f"{variable}={value}")
