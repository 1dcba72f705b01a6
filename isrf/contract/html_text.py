"""Removes HTML markup from a shop's texts, so that training and service read what people read.

Shops store descriptions as HTML, escaped once or twice, or cut off in the middle of a tag. `clean_text` removes markup
and keeps text that only looks like markup: `a < b`, `5 > 3`, `<3`, `AT&T`, `<Ctrl>`. The scan is our own, for two
reasons. It is linear: its patterns do not backtrack inside a name, while the standard library's `html.parser` needs
7.9 s for 30 KB of `<a` and a tab repeated (Python 3.11.7, two cores of an EPYC). And `html.parser` treats unclosed
constructs differently from one patch release to the next, while training and service must read a text alike.

    python -m timeit -n1 -r1 -s "from html.parser import HTMLParser as P" "P().feed('<a\\t' * 10000)"
"""

import html
import html.entities
import re

MAX_PASSES = 8
"""Passes of unescaping. Every pass shortens the text, and shops escape twice at most."""

ELEMENTS = frozenset(re.findall(r"\w+", """
a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink blockquote
body br button canvas caption center cite code col colgroup data datalist dd del details dfn dialog
dir div dl dt em embed fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6
head header hgroup hr html i iframe img input ins kbd label legend li link main map mark marquee
menu meta meter nav nobr noframes noscript object ol optgroup option output p param path picture pre
progress q rp rt ruby s samp script section select small source span strike strong style sub summary
sup svg table tbody td template textarea tfoot th thead time title tr track tt u ul var video wbr
"""))  # fmt: skip
INLINE = frozenset(re.findall(r"\w+", """
a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark nobr q s samp small
span strike strong sub sup time tt u var wbr
"""))  # fmt: skip
"""Elements that do not end a word: `H<sub>2</sub>O`."""
UNREAD = frozenset(("script", "style"))
"""Elements whose content is no text."""

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:_.-]*+)((?>[^<>\"']+|\"[^\"<]*\"|'[^'<]*'|[\"'])*+)>")
_BEGINS = re.compile(r"<(?:/?[A-Za-z]|[!?][A-Za-z\[-])")
_CLOSED = re.compile(r"</([A-Za-z][A-Za-z0-9:_.-]*+)>")
_CUT_OFF = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:_.-]*+)([^<>]*+)\Z")
_DECLARATION = re.compile(r"<[!?][A-Za-z\[][^<>]*>")
_OF_A_VOCABULARY = re.compile(r"[a-z][a-z0-9]*[:-][a-z][a-z0-9-]*")
_CDATA = "<![CDATA["
_AMPERSANDS = re.compile(r"&(?:(?:amp|#0*38|#x0*26);)+", re.IGNORECASE)
_ENTITY = re.compile(r"&(#[0-9]{1,8}|#[xX][0-9a-fA-F]{1,7}|[A-Za-z][A-Za-z0-9]{1,31})(;|(?![A-Za-z0-9=;]))")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INVISIBLE = re.compile("[\u00ad\u200b\ufeff]")
"""Characters that mark where a word may break; they are no part of the word."""


def clean_text(text: str) -> str:
    """The text without markup, with every run of white space as one blank. Clean texts come back unchanged."""
    text = _visible(text)
    for _ in range(MAX_PASSES):
        if "<" not in text and "&" not in text:
            break
        plain = _unescaped(_without_tags(text))
        if plain == text:
            break
        text = _visible(plain)
    return " ".join(text.split())


def _visible(text: str) -> str:
    """The text without invisible characters, control characters as blanks.

    It runs before the search for markup: a soft hyphen inside a tag would hide the tag until the text is read again.
    """
    if text.isprintable():  # then it holds no control or invisible character, and no blank but " "
        return text
    return _INVISIBLE.sub("", _CONTROL.sub(" ", text))


def _without_tags(text: str) -> str:
    parts: list[str] = []
    closed = frozenset(_CLOSED.findall(text))
    last_end = text.rfind("]]>")
    at = 0
    while (start := text.find("<", at)) >= 0:
        parts.append(text[at:start])
        if text.startswith(_CDATA, start):
            at = start + len(_CDATA)
            if at <= last_end:
                end = text.index("]]>", at)
                parts.append(text[at:end])
                at = end + 3
            continue
        part, at = _markup(text, start, closed) if _BEGINS.match(text, start) else ("<", start + 1)
        parts.append(part)
    parts.append(text[at:])
    return "".join(parts)


def _markup(text: str, start: int, closed: frozenset[str]) -> tuple[str, int]:
    """The replacement for the construct that starts with the `<` at `start`, and where the construct ends.

    `closed` holds the names that have an end tag somewhere in the text.
    """
    if text.startswith("<!--", start):
        end = text.find("-->", start + 2)
        return " ", len(text) if end < 0 else end + 3
    if declaration := _DECLARATION.match(text, start):
        return " ", declaration.end()
    if tag := _TAG.match(text, start):
        name = tag[2].lower()
        if not _is_tag(tag, closed):
            return "<", start + 1
        end = tag.end()
        if name in UNREAD and not tag[1] and not tag[3].endswith("/"):
            close = re.compile(f"</{name}", re.IGNORECASE).search(text, end)
            end = len(text) if close is None else close.start()
        return "" if name in INLINE else " ", end
    if (cut := _CUT_OFF.match(text, start)) and cut[2].lower() in ELEMENTS and (len(cut[2]) > 1 or "=" in cut[3]):
        return " ", cut.end()
    return "<", start + 1


def _is_tag(tag: re.Match[str], closed: frozenset[str]) -> bool:
    """Whether text in angle brackets is markup: an element of HTML, or written like one."""
    closing, name, rest = tag.groups()
    if closing or "=" in rest:
        return True
    if name.lower() in ELEMENTS:
        return len(name) > 1 or rest.strip() in ("", "/")
    return _OF_A_VOCABULARY.fullmatch(name) is not None or name in closed


def _unescaped(text: str) -> str:
    return _ENTITY.sub(_character, _AMPERSANDS.sub("&", text))


def _character(entity: re.Match[str]) -> str:
    name, end = entity.groups()
    known = name.startswith("#") or name + end in html.entities.html5
    return html.unescape(f"&{name};") if known else entity[0]
