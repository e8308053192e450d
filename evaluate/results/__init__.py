"""Rows, tables and pages of an evaluation."""
