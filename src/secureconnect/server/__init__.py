"""The edges: one port, requests and sockets and polls, all into one table of operations and one dispatch."""
