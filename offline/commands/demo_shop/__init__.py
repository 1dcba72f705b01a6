"""A shop made up from a seed (`generate`), for the demo and for tests that need to know the answer."""
