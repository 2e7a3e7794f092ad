# The parts of trio_upgrade.proxy.  They use public names of trio_upgrade only.
