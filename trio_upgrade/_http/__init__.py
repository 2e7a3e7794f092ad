# HTTP/1.1 between bytes and messages, for either role.  Pure: no Trio, no I/O; h11 only
# in the codec.
