"""Stage `graph`: individual interests from the interaction graph, group interests from the similar-user graph.

`stage` reads and writes, `features` makes the users' features and the map that predicts them, `similar` connects
similar users and runs LightGCN over their graph, `cells` divides many users into cells.
"""
