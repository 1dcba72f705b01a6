"""Turns a query into an answer: lists, explanations, warnings, cached responses, result lists, click statistics.

It knows no HTTP and may import `service.inference` and below.
"""
