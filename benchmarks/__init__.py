# Programs that measure, and programs that try to break, a running trio_upgrade.
