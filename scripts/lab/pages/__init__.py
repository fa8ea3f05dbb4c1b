"""HTML pages of summaries."""
