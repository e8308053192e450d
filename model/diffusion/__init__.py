"""Schedules, losses and guidance."""
