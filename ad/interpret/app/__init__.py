"""The app: play a world in turn with the trained model, look inside it, and edit its history.

`server.py` speaks HTTP on the loopback address, `requests.py` checks the requests of the page,
`session.py` plays, and `view.py` returns the state that the page `page.html` shows.
"""
