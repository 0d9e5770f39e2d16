from tests.support.rest import api

__all__ = ["api"]
