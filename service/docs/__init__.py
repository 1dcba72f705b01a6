"""The API's document and the page that shows it, at /docs: no secret is in them, so nobody needs a key to read them."""
