"""`python -m whichcar` is the command `whichcar`."""

from whichcar.cli import main

if __name__ == "__main__":
    main()
