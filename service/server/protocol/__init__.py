"""One connection's HTTP: heads, bodies that nobody reads, pipelining, refusals, and how many connections there are.

It may import what `service.server` may; of `service.server` itself what the wire must know of a request.
"""
