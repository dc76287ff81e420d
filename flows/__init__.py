"""When things happen: Prefect flows and tasks, and the Dask client that they drive."""
