"""`python -m diascope.cli` is the command `diascope`."""

from diascope.cli.main import main

main()
