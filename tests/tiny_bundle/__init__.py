"""A release that stands in the repository, and what makes it."""
