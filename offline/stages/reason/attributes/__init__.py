"""The attribute reasoner: sentences over items and users from the shop's own data, without an LLM."""
