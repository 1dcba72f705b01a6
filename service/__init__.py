"""The online service: opens a release bundle and answers over HTTP. Never imports torch, transformers or offline."""
