"""Finds leaks of held-out interactions: `python -m offline audit --data DIR [--release DIR]`.

With the data alone it checks whether ids predict the next item, counts duplicates and equal timestamps, scores a
transition table, and checks the prompts. With a release it also compares the arrays, texts and golden requests with
those that the training interactions alone give. Each check reports one finding per line; a leak ends the command with
status 1. It trains nothing and does not judge a model's quality.
"""

from offline.commands.audit.findings import Finding, as_json, as_table, has_leak
from offline.commands.audit.run import audit

__all__ = ["Finding", "as_json", "as_table", "audit", "has_leak"]
