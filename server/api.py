"""REST under `/api`."""


class Api:
    def __init__(self, hub, origins):
        pass

    def routes(self):
        return []
