"""Loads the prompts, versioned files beside this module, and fills them with data as JSON.

JSON keeps a text from ending its own quotation. A prompt file has a `version:`, the system message, and after
`=== user ===` the user message with its `{places}`. It knows nothing of answers or clients.
"""

import hashlib
import json
import re
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from offline.stages.reason.corpus import Item

MAX_DESCRIPTION_WORDS = 150
MAX_TITLE_WORDS = 60
"""Longer texts are cut, so that one very long text does not dominate the cost."""

_FILE = re.compile(r"\A---\nversion: (\d+)\n---\n(.*)\n=== user ===\n(.*)\Z", re.DOTALL)
_PLACE = re.compile(r"\{(\w+)\}")


class Message(NamedTuple):
    """One message of a conversation with the LLM."""

    role: str
    content: str


class Prompt(NamedTuple):
    """One prompt file: its version, system message and user message with `{places}`."""

    name: str
    version: int
    digest: str  # of the file: an edit without a new version is still another prompt
    system: str
    user: str

    @property
    def instructions(self) -> tuple[str, ...]:
        """What the prompt says itself, without the values of its places."""
        return self.system, *_PLACE.split(self.user)[::2]

    def fill(self, values: dict[str, Any]) -> tuple[Message, ...]:
        """Returns the messages with every place replaced by its value as JSON; KeyError for a missing value.

        It makes one pass, so a `{place}` inside a value stays text.
        """
        filled = _PLACE.sub(lambda place: json.dumps(values[place[1]], ensure_ascii=False), self.user)
        return Message("system", self.system), Message("user", filled)


@cache
def load_prompt(name: str) -> Prompt:
    """Returns the prompt `name` from the package's data."""
    text = (resources.files(__package__) / "prompts" / f"{name}.md").read_text(encoding="utf-8")
    match = _FILE.match(text)
    if match is None:
        raise ValueError(f"prompts/{name}.md does not have the form of a prompt file")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Prompt(name, int(match[1]), digest, match[2].strip(), match[3].strip())


def item_data(item: Item, *, currency: str) -> dict[str, Any]:
    """Returns the attributes of an item that an item's prompt shows; nothing of any other item."""
    data = {
        "title": _cut(item.title, MAX_TITLE_WORDS),
        "brand": item.brand,
        "categories": " > ".join(item.categories),
        "price": f"{currency}{item.price:.2f}" if item.price is not None else "",
        "description": _cut(item.description, MAX_DESCRIPTION_WORDS),
    }
    return {name: value for name, value in data.items() if value}


def taken_data(item: Item, feature: str | None) -> dict[str, Any]:
    """Returns the attributes of an item that a user's prompt shows."""
    data = {"title": _cut(item.title, MAX_TITLE_WORDS), "brand": item.brand, "interest": feature or ""}
    return {name: value for name, value in data.items() if value}


def _cut(text: str, num_words: int) -> str:
    words = text.split()
    return text if len(words) <= num_words else " ".join(words[:num_words]) + " …"
