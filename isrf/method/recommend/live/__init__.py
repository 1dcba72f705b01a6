"""Events since the release: counts and lists that grow with every event (`live_evidence`), within a memory bound.

The tables and the recommender read them. It may import `isrf.contract`, `isrf.method.evidence`, `isrf.method.interest`
and the variants of `isrf.method.recommend.product_groups`.
"""
