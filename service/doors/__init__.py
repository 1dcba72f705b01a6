"""Who may come in, how often, and how much they may send. It knows no recommendations."""
