-- no-transaction
-- The log of an endpoint by state, newest first. When this breaks off, it leaves an index that is not valid: drop that and run it again.
CREATE INDEX CONCURRENTLY webhook_delivery_by_state ON webhook_delivery (webhook_id, state, position);
