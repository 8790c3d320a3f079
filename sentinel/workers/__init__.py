"""Search cadences in Dask workers that hold a release in memory."""
