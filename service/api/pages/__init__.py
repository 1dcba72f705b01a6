"""The HTML pages: the demo at /demo and the API's document at /docs, with their files."""
