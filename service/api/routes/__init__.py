"""One module per resource; each route parses, asks, and writes the answer down."""
