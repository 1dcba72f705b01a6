"""User state in Redis or a Redis Cluster (`store`). Each file in `lua/` is one atomic script."""
