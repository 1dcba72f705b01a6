"""The bodies of requests and answers, as the API documents them; it may import `service.auth` and below."""
