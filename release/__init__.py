"""Makes a release, checks what its archives hold, and that they work where others will install them."""
