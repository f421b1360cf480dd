"""The app: play a world beside the trained model, look inside it, and edit what it remembers.

`server.py` speaks HTTP on the loopback address, `requests.py` checks what a page asks for,
`session.py` plays, and `view.py` says what there is to see. The page is `page.html`.
"""
