"""The attribute reasoner: writes sentences about items and users from the shop's own data, without an LLM."""
