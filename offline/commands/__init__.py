"""The commands beside `run`: audit, replay, evaluate, forget, loop_back (imports the service's events), demo_shop.

A command may import everything in `offline` except `offline.__main__`.
"""
