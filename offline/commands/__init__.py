"""What the command line can do beside a run: audit, evaluate, forget, take events back in, make the demo shop.

They may import everything in `offline` but `offline.__main__`.
"""
