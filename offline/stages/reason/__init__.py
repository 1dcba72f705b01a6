"""The stage `reason`: semantic features of items and users, in words.

`schemas` are the steps. `attribute` reasons from the corpus alone; `llm` asks a language model along the `chains`,
through the `ledger`, within the `plan`, and `distill` fills what was not asked. `stage` reads and writes, `show` and
`cost` are for people.
"""
