"""Runs the model: engine, batching, deadlines, limits. It knows no HTTP.

It may import `service.release` and below.
"""
