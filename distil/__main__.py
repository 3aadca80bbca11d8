"""`python -m distil` is the command `distil`."""

from distil.cli import main

raise SystemExit(main())
