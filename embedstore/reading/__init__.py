"""The verbs that only read a store: what it holds, and what is near to what."""
