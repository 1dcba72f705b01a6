"""Reads the text of a condition: checks its names, types and size, and writes it as SQL that polars compiles. Pure.

A condition is what an SQL WHERE clause holds: comparisons, `IN`, `BETWEEN`, `LIKE`, `IS NULL`, regular expressions,
arithmetic and a few functions of one row, joined by `AND`, `OR` and `NOT`. Everything else is refused here, with the
place: queries, functions over several rows, comments, casts. So polars never sees what it could read, and never a text
that takes it long: it needs seconds for long chains of operators and for large regular expressions.
"""

import re
from collections.abc import Callable, Sequence

from isrf.contract.shown import printable, shown
from service.release.conditions.parts import (
    FUNCTIONS,
    MAX_PATTERN,
    TYPE_NAMES,
    CheckedText,
    KnownNames,
    Part,
    PartType,
    balanced,
    check_regex,
    internal_name,
    membership,
    moment_of,
    quoted,
)
from service.release.conditions.tokens import TYPED_WORDS, WORDS, Token, read_tokens, refusal

MAX_TERMS, MAX_DEPTH, MAX_OPERATORS, MAX_PATTERNS = 50, 8, 100, 10
MAX_NUMBER = 1e15
_SPAN = re.compile(r"\d{1,6} (?:second|minute|hour|day|week)s?")
_COMPARE = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_MATCH = {"~": "~", "~*": "~*", "!~": "!~", "!~*": "!~*"}


def check_text(text: str, known: KnownNames) -> CheckedText:
    """Checks a condition that may use the known names.

    Raises:
        RequestError: `condition.invalid`, with the place and what to do.
    """
    return _Reader(list(read_tokens(text)), known).condition()


class _Reader:
    """Reads the tokens of one condition from left to right."""

    def __init__(self, tokens: Sequence[Token], known: KnownNames) -> None:
        self._tokens, self._known = tokens, known
        self._next = 0
        self._names: dict[str, int] = {}
        self._terms = self._operators = self._patterns = self._depth = 0

    def condition(self) -> CheckedText:
        if self._token.kind == "end":
            raise refusal("it is empty", 0, "Leave it out, or write one such as price < 80.")
        whole = self._either()
        if self._token.kind != "end":
            raise refusal(
                f"{self._shown()} is not understood here", self._token.at, "Join conditions with AND, OR, and brackets."
            )
        self._expect("boolean", whole, "The whole is true or false for an item: price < 80.")
        return CheckedText(whole.sql, tuple(self._names))

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _shown(self) -> str:
        return "the end" if self._token.kind == "end" else shown(self._token.text)

    def _take(self, *words: str) -> str:
        """Passes one of these words or signs and returns it; "" where another token is next."""
        word = self._token.word
        if word in words:
            self._next += 1
            return word
        return ""

    def _need(self, word: str) -> None:
        if not self._take(word):
            raise refusal(f"{word} is missing before {self._shown()}", self._token.at, f"Write {word} here.")

    def _count_operator(self, at: int) -> None:
        self._operators += 1
        if self._operators > MAX_OPERATORS:
            raise refusal(f"it has more than {MAX_OPERATORS} operators", at, "Simplify it, or use IN with a list.")

    def _deeper(self, at: int) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise refusal(f"it is nested more than {MAX_DEPTH} levels deep", at, "Leave out needless brackets.")

    def _either(self) -> Part:
        return self._joined("OR", 0, self._both)

    def _both(self) -> Part:
        return self._joined("AND", 1, self._negated)

    def _joined(self, word: str, tightness: int, read: Callable[[], Part]) -> Part:
        first = read()
        parts = [first]
        while self._take(word):
            self._count_operator(self._token.at)
            parts.append(read())
        if len(parts) == 1:
            return first
        for part in parts:
            self._expect("boolean", part, f"{word} joins conditions: price < 80 {word} brand = 'Auralis'.")
        return Part(balanced([part.within(tightness + 1) for part in parts], word), "boolean", first.at, tightness)

    def _negated(self) -> Part:
        at = self._token.at
        if not self._take("NOT"):
            return self._comparison()
        self._deeper(at)
        self._count_operator(at)
        part = self._expect("boolean", self._negated(), "NOT stands before a condition: NOT brand = 'Auralis'.")
        self._depth -= 1
        return Part(f"NOT {part.within(3)}", "boolean", at, 2)

    def _comparison(self) -> Part:
        left = self._sum()
        at, word = self._token.at, self._take(*_COMPARE)
        if word:
            return self._compared(left, word, at)
        if self._take("IS"):
            return self._is(left)
        negated = self._take("NOT") + " " if self._token.word == "NOT" else ""
        at, word = self._token.at, self._take("IN", "BETWEEN", "LIKE", "ILIKE", "REGEXP", "RLIKE", *_MATCH)
        if word == "IN":
            return self._in(left, negated)
        if word == "BETWEEN":
            low = self._sum()
            self._need("AND")
            high = self._sum()
            left, low = self._alike(left, low, word, at)
            left, high = self._alike(left, high, word, at)
            sql = f"{left.within(4)} {negated}BETWEEN {low.within(4)} AND {high.within(4)}"
            return Part(sql, "boolean", left.at, 3)
        if word and not (negated and word in _MATCH):
            return self._matched(left, negated, word)
        if negated or word:
            raise refusal(f"NOT does not fit before {self._shown()}", at, "NOT stands before IN, BETWEEN and LIKE.")
        return left

    def _compared(self, left: Part, word: str, at: int) -> Part:
        self._count_operator(at)
        left, right = self._alike(left, self._sum(), word, at)
        if left.type == "boolean" and _COMPARE[word] not in ("=", "<>"):
            raise refusal(f"{word} does not compare true and false", at, "Use = or <>.")
        return Part(f"{left.within(4)} {_COMPARE[word]} {right.within(4)}", "boolean", left.at, 3)

    def _is(self, left: Part) -> Part:
        negated = self._take("NOT") and "NOT "
        word = self._take("NULL", "TRUE", "FALSE")
        if not word:
            raise refusal(f"{self._shown()} does not follow IS", self._token.at, "Write IS NULL or IS NOT NULL.")
        if word == "NULL":
            return Part(f"{left.within(4)} IS {negated}NULL", "boolean", left.at, 3)
        self._expect("boolean", left, f"IS {word} follows an attribute that is true or false.")
        # Polars leaves a missing value missing here.
        sql = f"COALESCE({left.sql}, {'FALSE' if word == 'TRUE' else 'TRUE'})"
        if bool(negated) == (word == "TRUE"):
            return Part(f"NOT {sql}", "boolean", left.at, 2)
        return Part(sql, "boolean", left.at)

    def _in(self, left: Part, negated: str) -> Part:
        if self._token.kind in ("name", "quoted"):
            right = self._expect("texts", self._primary(), "IN is followed by a list: IN ('a', 'b').")
            self._expect("text", left, "A list of texts contains texts.")
            return Part(f"{negated}ARRAY_CONTAINS({right.sql}, {left.within(4)})", "boolean", left.at, 2)
        self._need("(")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self._need(")")
        if left.type == "texts" and all(value.type == "text" for value in values):
            fix = membership(values, left, negated=bool(negated))
            raise refusal("IN ('a', 'b') does not look into a list of texts", left.at, fix)
        listed = ", ".join(self._alike(left, value, "IN", value.at)[1].sql for value in values)
        return Part(f"{left.within(4)} {negated}IN ({listed})", "boolean", left.at, 3)

    def _matched(self, left: Part, negated: str, word: str) -> Part:
        self._expect("text", left, f"{word} compares a text.")
        token = self._token
        if token.kind != "text":
            raise refusal(f"{word} needs a text in single quotes", token.at, f"Write {word} 'lamp%'.")
        self._next += 1
        self._patterns += 1
        if self._patterns > MAX_PATTERNS or len(token.text) > MAX_PATTERN:
            message = f"a condition has at most {MAX_PATTERNS} patterns of at most {MAX_PATTERN} characters"
            raise refusal(message, token.at, "Use = or IN for whole texts.")
        if word not in ("LIKE", "ILIKE"):
            check_regex(token)
        return Part(f"{left.within(4)} {negated}{word} {quoted(token.text)}", "boolean", left.at, 3)

    def _sum(self) -> Part:
        left = self._product()
        while word := self._take("+", "-"):
            self._count_operator(self._token.at)
            right = self._product()
            kinds = (left.type, right.type)
            if kinds == ("number", "number"):
                result: PartType = "number"
            elif kinds == ("time", "span"):
                result = "time"
            elif kinds == ("time", "time") and word == "-":
                result = "span"
            else:
                message = f"{word} does not join {TYPE_NAMES[left.type]} and {TYPE_NAMES[right.type]}"
                raise refusal(message, right.at, "Join numbers, or a time and an INTERVAL '30 days'.")
            left = Part(f"{left.within(4)} {word} {right.within(5)}", result, left.at, 4)
        return left

    def _product(self) -> Part:
        left = self._signed()
        while word := self._take("*", "/", "%"):
            self._count_operator(self._token.at)
            right = self._signed()
            for part in (left, right):
                self._expect("number", part, f"{word} joins numbers.")
            # Without a result, as SQL has it; polars divides to infinity, which is larger than every number.
            divisor = right.within(6) if word == "*" else f"NULLIF({right.sql}, 0)"
            left = Part(f"{left.within(5)} {word} {divisor}", "number", left.at, 5)
        return left

    def _signed(self) -> Part:
        at = self._token.at
        if not self._take("-"):
            return self._primary()
        if self._token.word == "-":
            raise refusal("a sign stands twice", at, "Write one minus.")
        part = self._expect("number", self._primary(), "A minus stands before a number.")
        return Part(f"-{part.within(7)}", "number", at, 6)

    def _primary(self) -> Part:
        token = self._token
        if self._take("("):
            self._deeper(token.at)
            part = self._either()
            self._need(")")
            self._depth -= 1
            return part
        following = self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        if token.kind == "name" and following.word == "(" and token.word not in WORDS:
            return self._function(token)
        typed = token.word in TYPED_WORDS
        if token.kind == "quoted" or (
            token.kind == "name" and (token.word not in WORDS or (typed and following.kind != "text"))
        ):
            self._next += 1
            return self._name(token)
        return self._value()

    def _value(self) -> Part:
        """Reads a literal."""
        token = self._token
        self._next += 1
        if token.word == "-" and self._token.kind == "number":
            part = self._value()
            return part._replace(sql=f"-{part.sql}", at=token.at)
        if token.kind == "number":
            if not float(token.text) <= MAX_NUMBER:
                raise refusal(f"{shown(token.text)} is too large", token.at, f"Numbers go up to {MAX_NUMBER:g}.")
            return Part(repr(float(token.text)), "number", token.at)
        if token.kind == "text":
            return Part(quoted(token.text), "text", token.at, literal=token.text, written=quoted(token.text))
        if token.word in ("TRUE", "FALSE"):
            return Part(token.word, "boolean", token.at)
        if token.word in TYPED_WORDS and self._token.kind == "text":
            content = self._token
            self._next += 1
            if token.word != "INTERVAL":
                return moment_of(content)
            if _SPAN.fullmatch(content.text) is None:
                raise refusal(
                    f"{shown(content.text)} is no interval", content.at, "Write INTERVAL '30 days', or hours, weeks."
                )
            return Part(f"INTERVAL {quoted(content.text)}", "span", token.at)
        self._next -= 1
        if token.word == "NULL":
            raise refusal("nothing is equal to NULL", token.at, "Write IS NULL or IS NOT NULL.")
        if token.kind == "name" and token.word not in WORDS:
            raise refusal(f"{shown(token.text)} is no value", token.at, "A list has values; texts in single quotes.")
        raise refusal(f"{self._shown()} is not understood here", token.at, "Write a name, a value or ( here.")

    def _function(self, token: Token) -> Part:
        if token.word not in (*FUNCTIONS, "COALESCE"):
            fix = f"Functions are {', '.join(sorted(name.lower() for name in (*FUNCTIONS, 'coalesce')))}."
            raise refusal(f"there is no function {printable(token.text)}", token.at, fix)
        self._next += 1
        self._need("(")
        self._deeper(token.at)
        self._count_operator(token.at)
        arguments = [self._sum()]
        while self._take(","):
            arguments.append(self._sum())
        self._need(")")
        self._depth -= 1
        if token.word == "COALESCE":
            if len(arguments) != 2:
                raise refusal("coalesce takes two values", token.at, "Write coalesce(price, 0).")
            one, other = self._alike(arguments[0], arguments[1], "coalesce", token.at)
            return Part(f"COALESCE({one.sql}, {other.sql})", one.type, token.at)
        expected, result, template = FUNCTIONS[token.word]
        takes = f"{token.word.lower()} takes {' and '.join(TYPE_NAMES[kind] for kind in expected)}"
        if len(arguments) != len(expected):
            raise refusal(takes, token.at, f"It has {len(arguments)} arguments here.")
        for part, kind in zip(arguments, expected, strict=True):
            self._expect(kind, part, f"{takes[0].upper()}{takes[1:]}.")
        return Part(template.format(*(part.sql for part in arguments)), result, token.at)

    def _name(self, token: Token) -> Part:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise refusal(f"it names more than {MAX_TERMS} attributes", token.at, "Simplify it, or use IN with a list.")
        kind = self._known.type_of(token)
        number = self._names.setdefault(token.text, len(self._names))
        written = token.text if token.kind == "name" else '"' + token.text.replace('"', '""') + '"'
        return Part(f'"{internal_name(number)}"', kind, token.at, written=written)

    def _expect(self, kind: PartType, part: Part, fix: str) -> Part:
        if part.type != kind:
            raise refusal(f"this is {TYPE_NAMES[part.type]}, where {TYPE_NAMES[kind]} is needed", part.at, fix)
        return part

    def _alike(self, left: Part, right: Part, word: str, at: int) -> tuple[Part, Part]:
        """Returns two parts of one type; a text that is compared with a time is a moment."""
        if left.type == "time" and right.literal is not None:
            right = moment_of(Token("text", right.literal, right.at))
        if right.type == "time" and left.literal is not None:
            left = moment_of(Token("text", left.literal, left.at))
        texts, other = (left, right) if left.type == "texts" else (right, left)
        if texts.type == "texts" and other.type == "text":
            fix = membership([other], texts, negated=_COMPARE.get(word) == "<>")
            raise refusal(f"{word} does not compare {TYPE_NAMES['texts']} with {TYPE_NAMES['text']}", at, fix)
        if left.type != right.type:
            what = f"{word} does not compare {TYPE_NAMES[left.type]} with {TYPE_NAMES[right.type]}"
            raise refusal(what, at, "Texts stand in single quotes, numbers and true and false without.")
        if left.type == "texts":
            raise refusal(f"{word} does not compare lists", at, "Write 'Cups' IN categories.")
        return left, right
