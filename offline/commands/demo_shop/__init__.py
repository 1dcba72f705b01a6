"""Generates an invented shop from a seed (`generate`), for the demo and for tests that need the true interests."""
