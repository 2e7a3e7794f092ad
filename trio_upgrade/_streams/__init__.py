# Trio streams and listeners on sockets, how they close, and the stream that replays bytes
# which were read too early.  No HTTP.
