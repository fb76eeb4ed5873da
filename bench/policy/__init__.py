"""`make bench-policy`: the capacity policy on recorded spot markets, beside published rules."""
