"""Work on a Dask cluster: how to get one, and who does what when workers come, die and go."""
