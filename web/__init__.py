"""The web pages: a demo editor and a list of rooms, as static files with no server of their own."""
