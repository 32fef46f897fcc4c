"""The simulated engines: one scheduler core, run in virtual time or behind HTTP."""
