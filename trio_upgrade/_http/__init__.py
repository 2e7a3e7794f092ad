# HTTP/1.1 between bytes and messages, for client and server.  Pure: no Trio, no I/O; only
# the codec uses h11.
