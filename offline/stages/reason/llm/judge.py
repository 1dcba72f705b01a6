"""Judges whether an answer says something of its own: no echo of the question, no copy of the data, no refusal.

Small models give such answers, and they fit the schema: "who would enjoy this product", the title once more, "I'm
sorry, but I cannot". Kept, they would make items alike that share nothing but the question.

What a phrase of four words or more has in common with the prompt is copied. It knows nothing of calls or the ledger.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from isrf.method.text.encoder import UNSPACED
from offline.stages.reason.schemas import Step

COPIED_FROM = 4
"""Words in a row that are no coincidence; of a shorter answer all of its words."""
FEWEST_WORDS = 3
"""Different words that an answer must have of its own."""

_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
_REFUSAL = re.compile(
    r"""\W*(?:
        (?:i['’]?m|i\ am)\ (?:so\ |very\ |truly\ )?(?:sorry|afraid|unable|not\ able)\b
        | (?:i\ )?apologi[sz]e\b | (?:my\ )?apologies\b | sorry\b[,!.]
        | (?:unfortunately,?\ )?i\ (?:cannot|can\ not|can['’]t|could\ not|couldn['’]t|won['’]t|will\ not
            |do\ not|don['’]t|must\ decline|have\ no)\b
        | as\ an?\ (?:ai|artificial|large\ language|language\ model)\b
        | (?:there\ is\ )?(?:no|not\ enough|insufficient)\ (?:information|data|context)
            \ (?:is|was|are|to|about|on|of|given|provided|available)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""An answer's first words, in English, in which the prompts ask for answers. Nobody writes of shoppers as "I"."""


class Sources(NamedTuple):
    """What an answer may have copied."""

    prompt: tuple[str, ...]  # the question, and the data that it holds
    earlier: tuple[str, ...]  # answers to earlier steps, of which a later one may keep a phrase


def sources_of(instructions: Iterable[str], values: Mapping[str, Any]) -> Sources:
    """The sources of a prompt: its texts without the places, and what fills the places.

    A value that is a text is an earlier step's answer (`offline.stages.reason.llm.chains`), any other is data.
    """
    earlier = tuple(value for value in values.values() if isinstance(value, str))
    data = (text for value in values.values() if not isinstance(value, str) for text in _texts(value))
    return Sources((*instructions, *data), earlier)


def complaint_about(step: Step, sources: Sources) -> str:
    """What is wrong with a step's texts, as a sentence that a prompt can quote; empty if each says something."""
    for name in step.WORD_LIMITS:
        text: str = getattr(step, name)
        if _REFUSAL.match(text):
            return f'"{name}" was a refusal; write what the data supports, however little it is'
        words = _words(text)
        if len(set(words)) < FEWEST_WORDS:
            return f'"{name}" had fewer than {FEWEST_WORDS} different words'
        if _own_words(words, sources.prompt) < FEWEST_WORDS:
            return f'"{name}" only repeated the question or the data; write your own conclusion in your own words'
        # A later step may keep a phrase of an earlier answer; most of it again is no step.
        told = (text for text in sources.earlier if len(words) * 2 >= len(_words(text)))
        if _own_words(words, told) < FEWEST_WORDS:
            return f'"{name}" only repeated an earlier answer; write what follows from it'
    return ""


def _own_words(words: list[str], sources: Iterable[str]) -> int:
    """Different words outside of the phrases that stand in a source too."""
    length = min(COPIED_FROM, len(words))
    phrases = {phrase for source in sources for phrase in _phrases(_words(source), length)}
    copied = [False] * len(words)
    for start, phrase in enumerate(_phrases(words, length)):
        if phrase in phrases:
            copied[start : start + length] = [True] * length
    return len({word for word, is_copied in zip(words, copied, strict=True) if not is_copied})


def _phrases(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return (tuple(words[start : start + length]) for start in range(len(words) - length + 1))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _texts(value: Any) -> Iterator[str]:
    """All texts inside a value that is written as JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
