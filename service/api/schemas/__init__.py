"""Bodies of requests and answers, as the API documents them. They may import `service.auth` and below."""
