"""What all commands share of the terminal: options, printing, progress, exit codes."""
