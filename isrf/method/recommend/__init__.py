"""From a history to a ranked list: the `recommender`, its `tables`, and its requests and answers (`request`)."""
