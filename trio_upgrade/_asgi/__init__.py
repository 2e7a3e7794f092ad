# Serves ASGI applications; trio_upgrade.asgi has the public names.
