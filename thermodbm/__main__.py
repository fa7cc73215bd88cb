"""`python -m thermodbm` is `thermodbm`."""

from thermodbm.cli import main

main()
