"""Medians, ratios and verdicts of records; no text for people, no pictures."""
