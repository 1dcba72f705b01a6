"""The LLM reasoner: plans a budget, asks the steps, checks the answers. `reasoner` runs it, `calls` makes the calls."""
