"""The trade-off of a tolerance: honest runs that it rejects, and attacks that it lets pass."""
