"""Looks for held-out interactions where they must not be: `python -m offline audit --data DIR [--release DIR]`.

Of the data alone: ids that give the next item away, ties of time, what a table of transitions scores, prompts. With a
release: its arrays, texts and requests against what training interactions alone give. One finding a line; a leak ends
the command with status 1. It trains nothing and knows nothing of how well a model does.
"""

from offline.commands.audit.findings import Finding, as_json, as_table, has_leak
from offline.commands.audit.run import audit

__all__ = ["Finding", "as_json", "as_table", "audit", "has_leak"]
