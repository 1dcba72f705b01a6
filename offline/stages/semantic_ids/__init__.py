"""The stage `semantic-ids`: residual k-means over items, then unique codes."""
