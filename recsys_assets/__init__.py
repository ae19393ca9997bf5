"""Product recommendations for a shop whose orders sit in PostgreSQL, built as Dagster assets.

The folders show the flow: ``ingest`` -> ``learn`` -> ``evaluate`` -> ``publish``; the sibling
package ``serving`` answers HTTP requests from what ``publish`` wrote to Redis.
"""
