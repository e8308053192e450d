"""Libraries of animated assets: what is in them, what fits words best, and under which licence it comes."""
