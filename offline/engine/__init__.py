"""Where the pieces of a stage run: in this process (`local`, the default), or as tasks of a Ray cluster (`ray`).

`engine` is the interface that stages call; `local` and `on_ray` implement it, `choose` opens one for a command. Nothing
here knows what a piece is about. It may import `isrf.contract`, `isrf.runtime` and, in `on_ray` and `cluster`, Ray.
"""
