"""Programs that measure a running trio_upgrade, or try to break it."""
