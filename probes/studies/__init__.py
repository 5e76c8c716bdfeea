"""Questions asked of what is stored: each study records its numbers, which the report shows."""
