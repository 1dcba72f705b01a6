"""Every code that the three packages raise or answer with, read off their source: code, sentence, what to do.

A sentence is the code's own: what it fills in stands in italics by its name. It imports none of the packages' modules.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("isrf", "offline", "service")
ERRORS = {
    "ConfigError",
    "DataError",
    "StageError",
    "BundleError",
    "RequestError",
    "AccessError",
    "StoreError",
    "OverloadError",
}
REASONS = {"Refusal", "LineVerdict", "_invalid"}
"""Of one event or line; the second says `refused` before its reason."""
CODE = re.compile(r"[a-z_]+\.[a-z_0-9]+")
EXPANDED = {
    "kind": ("item", "user"),
    "parameter": ("item_id", "user_id"),
    "name": ("user_id", "item_id", "event_id"),
}
"""What names stand for in a code that is put together."""
_PASSED = {"HeadProblem", "_refuse", "refusing", "refusal_bytes", "CallerLimits", "OpenResult"}
"""Functions of ours that take a code from their caller."""

_RAISING = re.compile(rf"\b({'|'.join([*ERRORS, *REASONS, *_PASSED, 'warning', '__init__'])})\(|yield \"[a-z_]+\.")


class Raised(NamedTuple):
    """One place where a code is raised.

    Attributes:
        kind: the error's class; "" where a function of ours raises what it is given.
        message: Markdown; "" where the place says none.
        status: of HTTP, where the place says it; else 0.
    """

    code: str
    kind: str
    message: str
    fix: str
    module: str
    status: int = 0


@cache
def errors() -> tuple[Raised, ...]:
    """Every place that raises an `IsrfError`, or hands a code to who does."""
    return tuple(raised for module in _modules() for raised in _errors_in(module))


@cache
def reasons() -> tuple[Raised, ...]:
    """Every reason for which one event or line is refused."""
    return tuple(raised for module in _modules("service") for raised in _reasons_in(module))


@cache
def warnings() -> tuple[Raised, ...]:
    """Every warning of an answer."""
    found = []
    for module in _modules("service"):
        for call, around in _calls(module.tree):
            if _called(call) == "warning" and len(call.args) > 1 and isinstance(call.args[0], ast.Constant):
                message = _message(call.args[1], module, around)
                found.append(Raised(str(call.args[0].value), "", message, "", module.name))
    return tuple(found)


class _Module:
    def __init__(self, path: Path) -> None:
        self.name = path.relative_to(ROOT).as_posix()

    @property
    def tree(self) -> ast.Module:
        return _tree(self.name)

    @property
    def constants(self) -> Mapping[str, ast.expr]:
        return _constants(self.name)


@cache
def _modules(*packages: str) -> tuple[_Module, ...]:
    """Those that may raise something."""
    paths = [path for name in packages or PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    return tuple(_Module(path) for path in paths if _RAISING.search(path.read_text(encoding="utf-8")))


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


@cache
def _constants(name: str) -> Mapping[str, ast.expr]:
    """Texts with a name, the module's own and those that it imports from us."""
    path = ROOT / name
    found: dict[str, ast.expr] = {}
    if not path.exists():
        return found
    for node in _tree(name).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in PACKAGES:
            theirs = _constants(node.module.replace(".", "/") + ".py")
            found |= {alias.asname or alias.name: theirs[alias.name] for alias in node.names if alias.name in theirs}
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, (ast.Constant, ast.JoinedStr, ast.BinOp)):
                found[target.id] = value
    return found


def _errors_in(module: _Module) -> Iterator[Raised]:
    for call, around in _calls(module.tree):
        name = _called(call)
        texts = {one.arg: one.value for one in call.keywords if one.arg}
        given = [*call.args]
        if name == "__init__":
            # `super().__init__` of an error that says its own code.
            name = _error_class(module.tree, call)
        if name in ERRORS and given:
            message = _message(given[1], module, around) if len(given) > 1 else ""
            fix = _message(texts["fix"], module, around) if "fix" in texts else ""
            for spelled, meant in _codes(given[0], module, around):
                yield Raised(spelled, name, _with(message, meant), _with(fix, meant), module.name)
        elif name in _PASSED:
            yield from _passed(call, module, around)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            code, wrong = node.value.elts
            if isinstance(code, ast.Constant) and isinstance(code.value, str) and CODE.fullmatch(code.value):
                text = _text(wrong, module, None)
                fix = "Publish the release again."
                yield Raised(code.value, "BundleError", f"manifest.json: {text}.", fix, module.name)


def _passed(call: ast.Call, module: _Module, around: ast.AST | None) -> Iterator[Raised]:
    given = [*call.args, *(one.value for one in call.keywords if one.arg in ("code", "fix"))]
    for place, one in enumerate(given):
        for code, _ in _codes(one, module, around) if isinstance(one, (ast.Constant, ast.Name)) else ():
            texts = [_message(rest, module, around) for rest in given[place + 1 :]]
            numbers = [_number(before) for before in given[:place]]
            status = next((int(number) for number in numbers if number is not None), 0)
            message, fix = [*texts, "", ""][:2]
            if _called(call) == "refusing":
                message, fix = f"{message} cannot be read: *error*.", "Publish the release again."
            elif status:
                fix = fix or "Send it as HTTP/1.1 has it."
            kind = "OverloadError" if code.startswith("overload.") else "" if status else "BundleError"
            yield Raised(code, kind, message, fix, module.name, status)
            return


def _reasons_in(module: _Module) -> Iterator[Raised]:
    for call, around in _calls(module.tree):
        if _called(call) in REASONS and len(call.args) > 1:
            given = call.args[1:] if _called(call) == "LineVerdict" else call.args
            if len(given) > 1:
                for code, meant in _codes(given[0], module, around, pattern=re.compile(r"[a-z_]+")):
                    yield Raised(code, "", _with(_message(given[1], module, around), meant), "", module.name)


@cache
def _calls(tree: ast.AST) -> tuple[tuple[ast.Call, ast.AST | None], ...]:
    """Each call with the function around it, in the order of the source."""
    found = []
    left: list[tuple[ast.AST, ast.AST | None]] = [(tree, None)]
    while left:
        node, around = left.pop()
        if isinstance(node, ast.Call):
            found.append((node, around))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            around = node
        left += [(child, around) for child in reversed(list(ast.iter_child_nodes(node)))]
    return tuple(found)


def _called(call: ast.Call) -> str:
    function = call.func
    return (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )


def _error_class(tree: ast.AST, call: ast.Call) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(one is call for one in ast.walk(node)):
            return next((base.id for base in node.bases if isinstance(base, ast.Name) and base.id in ERRORS), "")
    return ""


def _codes(
    node: ast.expr, module: _Module, around: ast.AST | None, pattern: re.Pattern[str] = CODE
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The codes that an expression stands for, each with what its names stand for there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if pattern.fullmatch(node.value):
            yield node.value, {}
    elif isinstance(node, ast.JoinedStr):
        yield from _put_together(node)
    elif isinstance(node, ast.Name):
        value = _assigned(node.id, around) or module.constants.get(node.id)
        if value is not None:
            yield from _codes(value, module, None, pattern)
    elif isinstance(node, ast.IfExp):
        yield from _codes(node.body, module, around, pattern)
        yield from _codes(node.orelse, module, around, pattern)


def _put_together(node: ast.JoinedStr) -> Iterator[tuple[str, Mapping[str, str]]]:
    (name,) = (_name(part) for part in node.values if isinstance(part, ast.FormattedValue))
    for value in EXPANDED[name]:
        yield (
            "".join(str(part.value) if isinstance(part, ast.Constant) else value for part in node.values),
            {name: value},
        )


def _with(text: str, meant: Mapping[str, str]) -> str:
    """With the names replaced by what they stand for."""
    for name, value in meant.items():
        text = text.replace(f"*{name}*", value)
        # What is called item_id is the id of an item.
        text = text.replace("*kind*", value.removesuffix("_id"))
    return text


def _assigned(name: str, around: ast.AST | None) -> ast.expr | None:
    """What a function assigns to a name."""
    for node in ast.walk(around) if around is not None else ():
        if isinstance(node, ast.Assign) and any(isinstance(it, ast.Name) and it.id == name for it in node.targets):
            return node.value
    return None


def _message(node: ast.expr, module: _Module, around: ast.AST | None) -> str:
    text = " ".join(_text(node, module, around).split())
    # What stands in backticks is taken literally.
    text = re.sub(r"`[^`]*`", lambda code: re.sub(r"\\(\*)|\*", r"\1", code[0]), text)
    return text if re.match(r"[a-z_]+[._/=]", text) else text[:1].upper() + text[1:]


def _text(node: ast.expr, module: _Module, around: ast.AST | None) -> str:
    """A text as Markdown; what is filled in stands in italics."""
    number = _number(node)
    if number is not None:
        return f"{number:g}" if isinstance(number, float) else str(number)
    match node:
        case ast.Constant(value=value):
            return _escaped(str(value))
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, module, around) for part in parts)
        case ast.FormattedValue(value=inner):
            return _text(inner, module, around)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, module, around) + _text(right, module, around)
        case ast.IfExp(body=body, orelse=orelse):
            return _text(body, module, around) or _text(orelse, module, around)
        case ast.Name(id=spelled):
            meant = _assigned(spelled, around) or module.constants.get(spelled)
            if meant is not None and _is_text(meant):
                return _text(meant, module, None)
        case ast.Call(func=ast.Attribute(value=inner, attr="strip")) | ast.Subscript(value=ast.JoinedStr() as inner):
            return _text(inner, module, around)
    name = _name(node)
    return name if name == "…" else f"*{name}*"


def _is_text(node: ast.expr) -> bool:
    """Whether it can be written out: a text, a number, or a text that is left out at times."""
    if isinstance(node, ast.IfExp):
        return isinstance(node.body, ast.Constant) and node.body.value == "" and _is_text(node.orelse)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) and _is_text(node.right)
    text = isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    return text or _number(node) is not None


def _number(node: ast.AST | None) -> float | None:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return value
        case ast.BinOp(left=first, op=ast.Mult(), right=second):
            one, other = _number(first), _number(second)
            return None if one is None or other is None else one * other
    return None


def _name(node: ast.AST) -> str:
    """What is filled in, in a word or two."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_").replace("_", " ").lower()
        case ast.Call(args=[first, *_]):
            return _name(first)
        case ast.Call(func=function):
            return _name(function)
        case ast.Subscript(value=value) | ast.Starred(value=value) | ast.FormattedValue(value=value):
            return _name(value)
        case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
            return _name(element)
        case ast.BinOp(left=left):
            return _name(left)
        case ast.BoolOp(values=[first, *_]):
            return _name(first)
    return "…"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("*", "\\*")
