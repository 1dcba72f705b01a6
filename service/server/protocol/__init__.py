"""The HTTP of one connection: heads, unread bodies, pipelining, refusals, and the limit of connections.

It may import what `service.server` may, and of `service.server` itself what the protocol must know of a request.
"""
