"""Imports the events and item changes that the service accepted into the shop's files, exactly once (`take_in`)."""
