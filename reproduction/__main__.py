"""``python -m reproduction`` is the console command ``fcn``."""

from reproduction.commands.program import main

if __name__ == "__main__":
    main()
