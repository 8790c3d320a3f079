"""Parts that all programs of the service share: main loop, logs, supervisord."""
