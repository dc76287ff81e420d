"""`python -m flows`: run one or several flows, one after the other, in one process with one Prefect server.

Nothing is imported outside the guard: Dask's worker processes import this module when they start.
"""

if __name__ == "__main__":
    from flows.cli import main

    main()
