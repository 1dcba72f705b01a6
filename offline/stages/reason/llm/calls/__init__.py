"""Calls to an LLM: the clients, the retries, and the ledger that stores every answer."""
