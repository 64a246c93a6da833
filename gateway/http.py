"""The one place that chooses the HTTP library.

httpx2 continues httpx, whose last release is of 2024 and whose pool dies when requests
are cancelled under load (httpcore issue 1093).
"""

import httpx2 as httpx

__all__ = ["httpx"]
