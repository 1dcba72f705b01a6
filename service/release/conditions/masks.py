"""Caches compiled conditions and their masks for one version of the catalogue."""

import threading
from collections.abc import Collection, Hashable
from typing import NamedTuple

from cachetools import LRUCache

from isrf.method.interest import BoolArray
from service.release.conditions.attributes import Attributes
from service.release.conditions.condition import REQUEST_NAMES, Condition, RequestValues, compile_condition

MAX_COMPILED = 1024
MAX_MASK_BYTES = 32 * 1024 * 1024
ENTRY_BYTES = 4096
"""Of an entry and its key, beside the mask and the user's items: a text may have 2 KB."""
ROW_BYTES = 100
"""Of one of the user's items in a key."""


class _Entry(NamedTuple):
    mask: BoolArray
    num_bytes: int  # with the key


class ConditionMasks:
    """The conditions of one version of the catalogue; threads may share it."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._compiled: LRUCache[tuple[str, frozenset[str]], Condition] = LRUCache(MAX_COMPILED)
        self._masks: LRUCache[tuple[str, tuple[Hashable, ...]], _Entry] = LRUCache(
            MAX_MASK_BYTES, getsizeof=lambda entry: entry.num_bytes
        )
        self._lock = threading.Lock()

    def compile(self, text: str, names: Collection[str] = REQUEST_NAMES) -> Condition:
        """As `compile_condition` with this version's columns. The first call builds these: run it in a thread."""
        key = (text, frozenset(names))
        with self._lock:
            condition = self._compiled.get(key)
        if condition is None:
            condition = compile_condition(text, self._attributes.table().types, names)
            with self._lock:
                self._compiled[key] = condition
        return condition

    def find(self, text: str, values: RequestValues, names: Collection[str] = REQUEST_NAMES) -> BoolArray | None:
        """Returns a mask that is cached already, at once; not to be changed."""
        with self._lock:
            condition = self._compiled.get((text, frozenset(names)))
            entry = None if condition is None else self._masks.get((text, condition.values_key(values)))
        return None if entry is None else entry.mask

    def mask(self, text: str, values: RequestValues, names: Collection[str] = REQUEST_NAMES) -> BoolArray:
        """(N,) bool: the items for which a condition holds; not to be changed. Run it in a thread.

        Raises:
            RequestError: `condition.invalid`.
        """
        condition = self.compile(text, names)
        key = (text, condition.values_key(values))
        with self._lock:
            entry = self._masks.get(key)
        if entry is not None:
            return entry.mask
        mask = condition.mask(self._attributes.table(), values)
        mask.flags.writeable = False
        num_rows = sum(len(part) for part in key[1] if isinstance(part, frozenset))
        num_bytes = mask.nbytes + ENTRY_BYTES + ROW_BYTES * num_rows
        with self._lock:
            if num_bytes <= self._masks.maxsize:
                self._masks[key] = _Entry(mask, num_bytes)
        return mask
