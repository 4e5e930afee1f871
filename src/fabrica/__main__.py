"""`python -m fabrica` is the command line."""

from fabrica.cli import main

main()
