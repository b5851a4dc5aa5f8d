-- Where the members' changes are posted to, and what became of each.
CREATE TABLE webhook (
    webhook_id uuid CONSTRAINT webhook_pkey PRIMARY KEY,
    programme_id uuid NOT NULL CONSTRAINT webhook_programme REFERENCES programme,
    url text NOT NULL,
    kinds text[] NOT NULL,             -- of events; empty for all
    columns text NOT NULL CONSTRAINT webhook_columns CHECK (columns IN ('NONE', 'MASKED', 'WHOLE')),
    state text NOT NULL CONSTRAINT webhook_state CHECK (state IN ('ACTIVE', 'PAUSED', 'DISABLED')),
    state_reason text NOT NULL,        -- why it is disabled; empty otherwise
    position bigint NOT NULL,          -- facts up to it were taken up as deliveries
    secret bytea NOT NULL,             -- sealed with a key that is not in the database
    old_secret bytea,                  -- signs too, until
    old_secret_until timestamptz,
    failing_since timestamptz,         -- since when no answer was good; NULL while it is well
    version bigint NOT NULL,           -- rises with each change by a caller
    lease_id uuid,                     -- which replica works for it
    lease_until timestamptz,           -- until then no other does
    actor text NOT NULL,               -- who created it
    create_time timestamptz NOT NULL
);
CREATE INDEX webhook_of_programme ON webhook (programme_id, webhook_id);

-- An event for an endpoint. Ids and names of fields alone: what a member is stands in its own row.
CREATE TABLE webhook_delivery (
    webhook_id uuid NOT NULL CONSTRAINT webhook_delivery_webhook REFERENCES webhook ON DELETE CASCADE,
    position bigint NOT NULL,          -- of the fact
    fact_id uuid NOT NULL,
    member_id uuid NOT NULL,
    kind text NOT NULL,
    changed_fields text[] NOT NULL,
    event_time timestamptz NOT NULL,
    state text NOT NULL CONSTRAINT webhook_delivery_state CHECK (state IN ('PENDING', 'DELIVERED', 'FAILED')),
    attempt_count integer NOT NULL,    -- since it was last to be sent anew
    next_attempt_time timestamptz NOT NULL,
    attempts jsonb NOT NULL,           -- time, status, latency and error of the last 20
    create_time timestamptz NOT NULL,
    CONSTRAINT webhook_delivery_pkey PRIMARY KEY (webhook_id, position)
);
-- What is to be sent: the first of each member.
CREATE INDEX webhook_delivery_pending ON webhook_delivery (webhook_id, member_id, position) WHERE state = 'PENDING';
-- What is to be forgotten.
CREATE INDEX webhook_delivery_create_time ON webhook_delivery (create_time) WHERE state <> 'PENDING';
