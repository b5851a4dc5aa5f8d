-- A removed endpoint goes out of sight at once; what hangs on it is removed in parts, so that no caller waits for a month of deliveries.
ALTER TABLE webhook ADD COLUMN deleted boolean NOT NULL DEFAULT false;
CREATE INDEX webhook_deleted ON webhook (webhook_id) WHERE deleted;
