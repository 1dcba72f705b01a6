"""What is checked of a request before a route works on it: path, method, query, ids, shape of the JSON."""
