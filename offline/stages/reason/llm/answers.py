"""Turns a model's raw text into a validated step: strips thoughts, checks schema, content and word limits.

Text goes in, a step comes out. It knows nothing of the text's source.
"""

import json
import re
from typing import NamedTuple

from pydantic import ValidationError

from offline.stages.reason.llm.judge import Sources, complaint_about
from offline.stages.reason.schemas import Step, count_words, first_words

_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")


class Parsed(NamedTuple):
    """The result of `parse_answer`: a step, or None if the text is unusable, and what is wrong with it."""

    step: Step | None
    complaint: str
    failure: str = "invalid answer"  # its kind, which the report counts


def parse_answer(text: str, schema: type[Step], sources: Sources) -> Parsed:
    """Parses an answer; `complaint` is empty for a good answer, otherwise a sentence that a prompt can quote.

    Args:
        sources: texts that the answer may not merely repeat.
    """
    text = strip_thoughts(text)
    if not text:
        return Parsed(None, "the answer was empty")
    fence = _FENCE.match(text)
    try:
        step = schema.model_validate(json.loads(fence[1] if fence else text))
    except json.JSONDecodeError as error:
        return Parsed(None, f"the answer was no JSON object ({error.msg} at character {error.pos})")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        return Parsed(None, f"{where}: {first['msg']}")
    nothing_of_its_own = complaint_about(step, sources)
    if nothing_of_its_own:
        return Parsed(None, nothing_of_its_own, "nothing of its own")
    return Parsed(step, _too_long(step))


def strip_thoughts(text: str) -> str:
    """Removes `<think>…</think>`, also where the chat template holds the opening tag or the end is cut off."""
    text = _THOUGHTS.sub("", text)
    return text.rpartition("</think>")[2].partition("<think>")[0].strip()


def truncate(step: Step) -> Step:
    """Cuts every field of the step after the last sentence that fits, or after the last word if no sentence fits."""
    cut = {name: _cut(getattr(step, name), limit) for name, limit in step.WORD_LIMITS.items()}
    return step.model_copy(update=cut)


def _too_long(step: Step) -> str:
    for name, limit in step.WORD_LIMITS.items():
        words = count_words(getattr(step, name))
        if words > limit:
            return f'"{name}" had {words} words; at most {limit} are allowed'
    return ""


def _cut(text: str, limit: int) -> str:
    if count_words(text) <= limit:
        return text
    shortened = first_words(text, limit)
    ends = [match.end() for match in _SENTENCE_END.finditer(shortened)]
    return shortened[: ends[-1]] if ends else shortened.rstrip(",;:-") + "…"
