"""Write messages, and deliver each one once to Slack or a webhook."""
