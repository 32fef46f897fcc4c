"""What a study looks like in a terminal: while it runs, on stderr, and its summary, on stdout."""
