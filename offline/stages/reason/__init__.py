"""The stage `reason`: writes a semantic feature, a short text, for every item and user.

`schemas` defines the steps and their limits. `attributes` reasons without an LLM, from the shop's data alone. `llm`
asks a language model: `llm.plan` chooses whom to ask about within the budget, `llm.chains` asks the steps in order,
`llm.calls` makes and stores the calls, `llm.distill` fills the rest. `stage` reads and writes the files. `show` prints
the steps of one item or user, and `llm.cost` estimates the price of a run.
"""
