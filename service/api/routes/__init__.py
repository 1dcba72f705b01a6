"""The HTTP surface: one module per resource; each route parses, asks, and writes the answer down."""
