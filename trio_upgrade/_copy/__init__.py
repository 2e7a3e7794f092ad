# Bytes from one stream to another: the engines, a copy in one direction, and in both.
