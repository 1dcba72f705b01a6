"""The commands beside `run`: audit, replay, recommend (lists of all users), evaluate, forget, demo_shop, loop_back
(imports the service's events).

A command may import everything in `offline` except `offline.__main__`.
"""
