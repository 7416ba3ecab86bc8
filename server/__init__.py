"""Serve Yjs rooms: the wire, documents, rooms, sockets, REST and the command line."""

__version__ = "0.1.0"
