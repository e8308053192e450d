"""Rules from labels: thresholds and a small model that agree with people, checked on other assets."""
