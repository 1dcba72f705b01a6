"""Caches compiled conditions and their masks for one version of the catalogue."""

import threading
from collections.abc import Collection, Hashable

from cachetools import LRUCache

from isrf.method.interest import BoolArray
from service.release.conditions.attributes import Attributes
from service.release.conditions.condition import REQUEST_NAMES, Condition, RequestValues, compile_condition

MAX_COMPILED = 1024
MAX_MASK_BYTES = 32 * 1024 * 1024


class ConditionMasks:
    """The conditions of one version of the catalogue; threads may share it."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._compiled: LRUCache[tuple[str, frozenset[str]], Condition] = LRUCache(MAX_COMPILED)
        self._masks: LRUCache[tuple[str, Hashable], BoolArray] = LRUCache(MAX_MASK_BYTES, getsizeof=_num_bytes)
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
            return None if condition is None else self._masks.get((text, condition.values_key(values)))

    def mask(self, text: str, values: RequestValues, names: Collection[str] = REQUEST_NAMES) -> BoolArray:
        """(N,) bool: the items for which a condition holds; not to be changed. Run it in a thread.

        Raises:
            RequestError: `condition.invalid`.
        """
        condition = self.compile(text, names)
        key = (text, condition.values_key(values))
        with self._lock:
            mask = self._masks.get(key)
        if mask is None:
            mask = condition.mask(self._attributes.table(), values)
            mask.flags.writeable = False
            with self._lock:
                if mask.nbytes <= MAX_MASK_BYTES:
                    self._masks[key] = mask
        return mask


def _num_bytes(mask: BoolArray) -> int:
    return max(1, mask.nbytes)
