"""`python -m fedproof` is the `fedproof` command."""

from fedproof.cli import main

main()
