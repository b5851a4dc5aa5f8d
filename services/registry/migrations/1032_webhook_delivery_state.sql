-- The log of an endpoint by state, newest first.
CREATE INDEX webhook_delivery_by_state ON webhook_delivery (webhook_id, state, position);
