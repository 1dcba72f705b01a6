"""The HTML pages, with their files: the demo at /demo, the studio at /studio, the API's document at /docs."""
