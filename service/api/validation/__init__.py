"""Checks a request before its route runs: path, method, query, ids, shape of the JSON."""
