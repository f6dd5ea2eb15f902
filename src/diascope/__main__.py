"""`python -m diascope` is the command `diascope`."""

from diascope.cli.main import main

main()
