"""Reads events from Kafka and posts them to a running service: `python -m service consume`.

A program of its own: it imports no app, store or release, and speaks HTTP to the service as a shop's backend does.
`kafka` alone imports aiokafka, the extra `kafka`, and only the command imports `kafka`.
"""
