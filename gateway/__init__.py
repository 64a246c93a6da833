"""The service in front of the engine. It imports nothing: the plug-in lives here."""
