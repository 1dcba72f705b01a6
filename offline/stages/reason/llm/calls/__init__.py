"""Calls to an LLM: clients, retries, and the ledger that keeps every answer that was paid for."""
