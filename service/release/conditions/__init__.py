"""Conditions on items: `filter=` of a list and those of rules, compiled by polars and cached for each catalogue.

`attributes` has the items' fields as columns. `tokens` splits a text, `parts` and `grammar` check it, `condition`
compiles and evaluates it, `masks` caches. It may import `isrf` alone.
"""

from service.release.conditions.condition import (
    BOUGHT,
    DISLIKED,
    NOW,
    REQUEST_NAMES,
    Condition,
    RequestValues,
    compile_condition,
)
from service.release.conditions.masks import ConditionMasks
from service.release.conditions.parts import CONTEXT

__all__ = [
    "BOUGHT",
    "CONTEXT",
    "DISLIKED",
    "NOW",
    "REQUEST_NAMES",
    "Condition",
    "ConditionMasks",
    "RequestValues",
    "compile_condition",
]
