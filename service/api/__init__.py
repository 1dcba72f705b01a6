"""The HTTP surface: routes, schemas, problem details, pages for people.

It may import `service.auth`, `service.sync` and below.
"""
