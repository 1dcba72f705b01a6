"""A page to try the service on, in demo mode alone (`--demo`): it calls the same API as any shop."""
