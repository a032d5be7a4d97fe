"""Makes a release: what has to change for it, what its archives hold, and that they work once installed."""
