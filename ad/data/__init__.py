"""Learning histories: their schema, their store on disk, and the windows that training draws."""
