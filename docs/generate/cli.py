"""docs/reference/cli.md: every command of `python -m offline` and `python -m service`."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import typer.main

from docs.generate.markdown import code, page, prose, table
from docs.generate.values import default_of
from offline.__main__ import app
from service.__main__ import option_parser
from service.auth.command import keys_parser
from service.consume.command import consume_parser

HEAD = ("Option", "Default", "Meaning")


def cli_page() -> str:
    return page(
        "Command line",
        prose(
            "`--help` prints the same in a terminal. Options without a default may be left out, unless they are marked "
            "as needed."
        ),
        "## The offline job",
        prose(
            "`python -m offline COMMAND`. An error ends a command with one line that holds its "
            "[code](errors.md), and status 2. The printed result stands alone on standard output; bars and tables go "
            "to standard error. Keys for `--set` and `--config` are in "
            "[Offline configuration](offline-config.md)."
        ),
        *(_typer_command(path, command) for path, command in _commands(typer.main.get_command(app), "")),
        "## The service",
        prose(
            "`python -m service`. It ends with status 0 after SIGTERM or SIGINT once it has drained, 1 if a second "
            "signal did not let it, 2 for a setting that cannot work, 3 if the release or the state cannot be opened. "
            "Every option is a [setting](settings.md) too."
        ),
        _heading("python -m service"),
        table(HEAD, _parser_rows(option_parser())),
        *_keys(),
        _heading("python -m service consume"),
        prose(consume_parser().description or ""),
        table(HEAD, _parser_rows(consume_parser())),
    )


def _heading(command: str) -> str:
    return f"### {code(command)}"


def _commands(group: Any, before: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        path = f"{before} {name}".strip()
        yield path, command
        if hasattr(command, "commands"):
            yield from _commands(command, path)


def _typer_command(path: str, command: Any) -> str:
    kinds = get_type_hints(command.callback)
    rows = [_typer_row(one, kinds[one.name]) for one in command.params if one.name in kinds]
    parts = [_heading(f"python -m offline {path}"), prose(command.help or ""), table(HEAD, rows)]
    return "\n\n".join(part for part in parts if part)


def _typer_row(parameter: Any, kind: object) -> list[str]:
    name = parameter.opts[0]
    if not name.startswith("-"):
        name = name.upper()
    elif not parameter.is_flag:
        name += f" {_value(str(kind))}"
    return [code(name), "needed" if parameter.required else _default(parameter), parameter.help or ""]


def _value(kind: str) -> str:
    """What stands after an option, by its type."""
    if "Path" in kind:
        return "PATH"
    return "NUMBER" if "int" in kind or "float" in kind else "TEXT"


def _default(parameter: Any) -> str:
    return "" if parameter.default is None or parameter.is_flag else default_of(parameter.default)


def _keys() -> Iterator[str]:
    actions = next(one for one in keys_parser()._actions if isinstance(one, argparse._SubParsersAction))
    helps = {one.dest: one.help or "" for one in actions._choices_actions}
    for name, parser in actions.choices.items():
        yield _heading(f"python -m service keys {name}")
        yield prose(helps[name][:1].upper() + helps[name][1:] + ".")
        yield table(HEAD, _parser_rows(parser))


def _parser_rows(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    for one in parser._actions:
        if isinstance(one, argparse._HelpAction):
            continue
        name = one.option_strings[0] if one.option_strings else one.dest.upper()
        if one.option_strings and one.nargs != 0:
            name += " PATH" if one.type is Path or one.dest == "file" else f" {one.dest.upper()}"
        text = one.help or " or ".join(code(choice) for choice in one.choices or ())
        needed = one.required or not one.option_strings
        yield [code(name), "needed" if needed else "", f"{text[:1].upper()}{text[1:].rstrip('.')}."]
