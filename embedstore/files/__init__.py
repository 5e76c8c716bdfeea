"""Tables in, results out: whole or not at all."""
