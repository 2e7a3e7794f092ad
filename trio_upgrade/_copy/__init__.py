# Bytes from one stream to another: the engines, one direction, both directions.
