"""The command line, one file a command group. `main.py` gathers them."""
