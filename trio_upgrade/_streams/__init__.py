# Trio streams and listeners on sockets, how they close, and the stream that replays what
# was read too far.  No HTTP.
