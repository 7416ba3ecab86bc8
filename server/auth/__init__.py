"""Who may do what: credentials become a principal with grants, and every path asks the same guard.

`principal` says what a right is, the verifiers (`jwt`, `keys`, `callback`, `anonymous`) turn a
credential into a principal, `revocations` takes rights away, and `guard` is what sockets and REST
ask.
"""
