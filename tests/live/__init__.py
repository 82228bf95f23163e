"""Real engines behind the real gateway: every test here is marked `live`."""
