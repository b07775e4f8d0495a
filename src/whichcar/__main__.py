"""`python -m whichcar` is the command `whichcar`."""

from whichcar.cli.main import main

if __name__ == "__main__":
    main()
