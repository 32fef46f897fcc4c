"""`python -m tuner`: the same as `tune` (Ray installs a script of that name too)."""

from tuner.cli import main

main()
