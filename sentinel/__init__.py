"""The service around the science: folders watched, cadences queued and searched, candidates recorded and announced."""
