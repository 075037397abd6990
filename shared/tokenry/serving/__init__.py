"""What every service shares (extra `serving`): settings, the base application, health, metrics, logs."""
