"""`python -m astolfo` is the command line."""

from astolfo.cli import main

main()
