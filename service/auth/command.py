"""The command `python -m service keys add|list|drop` manages the API keys file.

    python -m service keys add --file FILE --role write [--name "shop backend"] [--rate 50/second] [--to FILE]

It prints a key once, alone on standard output, and cannot show it again. To rotate a key, add a new one, give it to the
callers, and drop the old one: a running service follows within a second.
"""

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from isrf.contract.errors import ConfigError
from isrf.runtime.files import write_file
from service.auth.keys import INCLUDES, KeyEntry, KeyFile, make_key, read_keys
from service.settings import checked_rate

_OWNER_ONLY = 0o600


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code: 0, or 2 with a message on stderr."""
    options = keys_parser().parse_args(arguments)
    if not options.file:
        print("error: config.keys_file: name the file with --file or ISRF_API_KEYS_FILE.", file=sys.stderr)
        return 2
    try:
        return int(options.run(options, Path(options.file)))
    except (ConfigError, OSError) as error:
        code = error.code if isinstance(error, ConfigError) else "config.keys_file"
        print(f"error: {code}: {error}", file=sys.stderr)
        return 2


def keys_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m service keys", description="Manages the API keys file.")
    actions = parser.add_subparsers(required=True, metavar="add|list|drop")
    add = actions.add_parser("add", help="make a key and print it, once")
    add.add_argument("--role", choices=list(INCLUDES), required=True)
    add.add_argument("--name", default="", help="whose key it is, for people")
    add.add_argument("--rate", type=_rate, help="how often it may call, e.g. 50/second (else ISRF_RATE_LIMIT)")
    add.add_argument("--to", type=Path, help="write the key into this file, readable by you alone, and print its path")
    add.add_argument("--once", action="store_true", help="do nothing if the file holds a key already")
    add.set_defaults(run=_add)
    listed = actions.add_parser("list", help="ids, roles, names; never the keys")
    listed.set_defaults(run=_list)
    drop = actions.add_parser("drop", help="let a key in no more")
    drop.add_argument("id", help="the eight characters after isrf_")
    drop.set_defaults(run=_drop)
    for action in (add, listed, drop):
        action.add_argument(
            "--file", default=os.environ.get("ISRF_API_KEYS_FILE"), help="API keys file (ISRF_API_KEYS_FILE)"
        )
    return parser


def _rate(text: str) -> str:
    try:
        return checked_rate(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add(options: argparse.Namespace, path: Path) -> int:
    with _locked(path):
        keys = read_keys(path) if path.exists() else ()
        if keys and options.once:
            print(f"{path} already has {len(keys)} keys", file=sys.stderr)
            return 0
        key, entry = make_key(options.role, name=options.name, rate=options.rate, now=datetime.now(UTC))
        if options.to is not None:
            write_file(options.to, f"{key}\n".encode(), mode=_OWNER_ONLY)
        write_file(path, _text((*keys, entry)), mode=_OWNER_ONLY)
    print(f"added key {entry.id} with the role {entry.role} to {path}", file=sys.stderr)
    print(key if options.to is None else options.to)
    return 0


def _list(_: argparse.Namespace, path: Path) -> int:
    for key in read_keys(path):
        print(f"{key.id}  {key.role:<7}  {key.created_at:%Y-%m-%d}  {key.rate or '-'}  {key.name}".rstrip())
    return 0


def _drop(options: argparse.Namespace, path: Path) -> int:
    with _locked(path):
        keys = read_keys(path)
        remaining = tuple(key for key in keys if key.id != options.id)
        if len(remaining) == len(keys):
            raise ConfigError("config.no_such_key", f"{path} has no key {options.id!r}.", fix="See `keys list`.")
        if not remaining:
            raise ConfigError(
                "config.last_key", "this is the last key, and without a key no caller has access.", fix="Add one first."
            )
        write_file(path, _text(remaining), mode=_OWNER_ONLY)
    return 0


def _text(keys: Sequence[KeyEntry]) -> bytes:
    text = json.dumps(KeyFile(keys=tuple(keys)).model_dump(mode="json", exclude_defaults=True), indent=2)
    return f"{text}\n".encode()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks the file's folder, so that two concurrent commands do not lose each other's key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
