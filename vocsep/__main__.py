"""`python -m vocsep`: the `vocsep` command, as torchrun starts it."""

if __name__ == "__main__":
    from vocsep.cli.main import main

    main()
