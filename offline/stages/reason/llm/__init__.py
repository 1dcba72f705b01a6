"""The LLM reasoner: a budget, chains of steps, validated answers. `reasoner` runs it, `calls` does the calling."""
