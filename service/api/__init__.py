"""The HTTP API: routes, schemas, validation, problem details, bulk imports and exports, and the HTML pages.

It may import `service.auth`, `service.sync` and below.
"""
