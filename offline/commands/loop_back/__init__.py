"""The loop closes: what the service accepted becomes rows of the shop's files, each exactly once (`take_in`)."""
