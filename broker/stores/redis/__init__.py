"""The store in Redis or Valkey, for many brokers at once. Needs the extra ``redis``."""

from broker.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
