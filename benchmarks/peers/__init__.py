"""What the API is measured beside, how it is all started, and how it is put under load.

The services answer ``GET /api/recommendations/top-buys/?user_id=`` with the body of ours, from the
same keys of the Redis in ``RECSYS_REDIS_URL``. Nothing here is part of the project's own service.
"""
