"""Tables, pages and pictures of what was measured; each reads records or figures from files."""
