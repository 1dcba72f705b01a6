"""Defines one schema per reasoning step; each step reads the answers of the steps before it.

The same classes validate an LLM's answer, build its `response_format` and hold the attribute reasoner's sentences, so
a field has one name from the prompt to the table. A limit is the most words that a text may have (the method's paper).
It knows nothing of prompts, clients or tables.
"""

import itertools
import re
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from isrf.method.text.encoder import UNSPACED

Origin = Literal["attribute", "llm", "distilled"]
Text = Annotated[str, Field(min_length=1)]


class Step(BaseModel):
    """One step's answer; `WORD_LIMITS` has an entry per field."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    WORD_LIMITS: ClassVar[dict[str, int]] = {}


class ItemPositive(Step):
    """Who would enjoy the item."""

    WORD_LIMITS = {"positive": 200}

    positive: Text


class ItemNegative(Step):
    """Who would not, given who would."""

    WORD_LIMITS = {"negative": 200}

    negative: Text


class ItemFeature(Step):
    """The item's semantic feature, deduced from both sides, and why."""

    WORD_LIMITS = {"feature": 25, "justification": 50}

    feature: Text
    justification: Text


class UserLikes(Step):
    WORD_LIMITS = {"likes": 100}

    likes: Text


class UserDislikes(Step):
    WORD_LIMITS = {"dislikes": 100}

    dislikes: Text


class UserCore(Step):
    """The user's core preference: the semantic user feature."""

    WORD_LIMITS = {"core": 50}

    core: Text


class ItemReasoning(ItemPositive, ItemNegative, ItemFeature):
    """The whole chain over one item."""

    WORD_LIMITS = ItemPositive.WORD_LIMITS | ItemNegative.WORD_LIMITS | ItemFeature.WORD_LIMITS


class UserReasoning(UserLikes, UserDislikes, UserCore):
    """The whole chain over one user."""

    WORD_LIMITS = UserLikes.WORD_LIMITS | UserDislikes.WORD_LIMITS | UserCore.WORD_LIMITS


MAX_WORD_CHARACTERS = 30
"""A longer run without a space counts as several words, so that the limits hold for any text."""

_WORD = re.compile(rf"[{UNSPACED}][^\w\s]{{0,3}}|[^\s{UNSPACED}]{{1,{MAX_WORD_CHARACTERS}}}…?")


def count_words(text: str) -> int:
    """Counts the words: runs without a space, and single characters in scripts that use no spaces."""
    return sum(1 for _ in _WORD.finditer(text))


def first_words(text: str, number: int) -> str:
    """Returns the first `number` words of the text, counted as `count_words` does, with single spaces."""
    text = " ".join(text.split())
    last = next(itertools.islice(_WORD.finditer(text), number - 1, None), None)
    return text[: last.end()] if last else text
