from tests.support.admin import user_with
from tests.support.rest import api

__all__ = ["api", "user_with"]
