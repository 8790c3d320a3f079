"""What every program of the service shares: its main loop, its logs, and supervisord."""
