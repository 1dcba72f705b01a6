"""From a history to a ranked list: `recommender`, its `tables`, and what it is asked and answers (`request`)."""
