"""Who is in train, validation and test: drawn, audited, stored, exchanged."""
