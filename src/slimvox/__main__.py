"""`python -m slimvox`, and `accelerate launch --module slimvox`."""

from slimvox.cli import main

main()
