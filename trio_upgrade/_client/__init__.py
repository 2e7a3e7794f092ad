# From a URL to a connection.
