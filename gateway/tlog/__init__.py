"""The gateway's transparency log: sign its head, have it cosigned, serve it."""
