"""Report the state of the service: status, latency and Prometheus metrics."""
