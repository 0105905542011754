"""The edge: sockets, connections, bodies, errors and streams. Knows no client API's fields."""
