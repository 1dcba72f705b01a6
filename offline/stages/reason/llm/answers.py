"""From a model's raw text to a validated step: thoughts stripped, schema held, limits enforced (text in, step out).

It knows nothing of where the text came from.
"""

import json
import re
from typing import NamedTuple

from pydantic import ValidationError

from offline.stages.reason.schemas import Step, count_words, first_words

_FENCE = re.compile(r"\A```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)
_THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|[。！？]")


class Parsed(NamedTuple):
    """A step and the reason why it should be asked again; or no step at all, and why not."""

    step: Step | None
    complaint: str


def parse_answer(text: str, schema: type[Step]) -> Parsed:
    """Reads an answer; `complaint` is empty where it is good, and worded so that the model can be told."""
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
    return Parsed(step, _too_long(step))


def strip_thoughts(text: str) -> str:
    """Without `<think>…</think>`; also where the opening tag was part of the chat template, or the end was cut off."""
    text = _THOUGHTS.sub("", text)
    return text.rpartition("</think>")[2].partition("<think>")[0].strip()


def truncate(step: Step) -> Step:
    """The step with every field cut at the last sentence that fits, or at the last word where none does."""
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
    kept = first_words(text, limit)
    ends = [match.end() for match in _SENTENCE_END.finditer(kept)]
    return kept[: ends[-1]] if ends else kept.rstrip(",;:-") + "…"
