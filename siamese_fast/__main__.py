"""`python -m siamese_fast` is the command `siamese-fast`."""

from siamese_fast.cli import main

if __name__ == "__main__":
    main()
