-- What every service's schema holds beside its own tables. Time: UTC, read through koc_now() alone.

-- The one way by which SQL reads time: the clock at this instant, not at the start of the transaction, so that what is read
-- after a lock is taken is later than whatever held the lock. Test databases replace it.
CREATE FUNCTION koc_now() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT clock_timestamp()';

-- Answers to mutations, by which a retry is recognised.
CREATE TABLE request_record (
    programme_id uuid NOT NULL,
    method text NOT NULL,              -- full name of the request message
    request_id uuid NOT NULL,
    request_hash bytea NOT NULL,       -- SHA-256 of the encoded request
    answer bytea,                      -- encoded response without personal data; NULL for a refusal
    refusal jsonb,                     -- code, reason, message and figures of a refusal; NULL for an answer
    actor text NOT NULL,               -- the person or system that acted
    create_time timestamptz NOT NULL,
    CONSTRAINT request_record_pkey PRIMARY KEY (programme_id, method, request_id),
    CONSTRAINT request_record_outcome CHECK ((answer IS NULL) <> (refusal IS NULL))
);
CREATE INDEX request_record_create_time ON request_record (create_time);

-- Who did what, when and why. Append-only for the application role.
CREATE TABLE audit_entry (
    audit_entry_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT audit_entry_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    method text NOT NULL,              -- full name of the request message
    request_id uuid NOT NULL,
    actor text NOT NULL,               -- the person or system that acted
    client text NOT NULL,              -- the token's subject: the platform that called
    subject_id uuid,                   -- what was acted on, when it is one thing
    reason text,                       -- why, as the caller said it
    trace_id text,
    create_time timestamptz NOT NULL
);
CREATE INDEX audit_entry_subject ON audit_entry (programme_id, subject_id, audit_entry_id);

-- Facts that have no place in the feed yet, written in the transaction of the change: one row for all that it tells at once, taken
-- away by the sequencer once the transaction is committed.
CREATE TABLE outbox (
    ordinal bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT outbox_pkey PRIMARY KEY, -- has gaps and may commit out of order
    fact_ids uuid[] NOT NULL,          -- this and the next four are of one length: a fact each
    programme_ids uuid[] NOT NULL,
    subject_ids uuid[] NOT NULL,
    type_names text[] NOT NULL,        -- full name of the fact's message
    payloads bytea[] NOT NULL,         -- the fact, encoded
    traceparent text NOT NULL,         -- context of the call that caused it
    record_time timestamptz NOT NULL,
    CONSTRAINT outbox_lengths CHECK (cardinality(fact_ids) > 0 AND cardinality(programme_ids) = cardinality(fact_ids)
        AND cardinality(subject_ids) = cardinality(fact_ids) AND cardinality(type_names) = cardinality(fact_ids)
        AND cardinality(payloads) = cardinality(fact_ids))
);
-- It lives for milliseconds: to press it costs more than it saves.
ALTER TABLE outbox ALTER COLUMN fact_ids SET STORAGE EXTERNAL, ALTER COLUMN programme_ids SET STORAGE EXTERNAL,
    ALTER COLUMN subject_ids SET STORAGE EXTERNAL, ALTER COLUMN type_names SET STORAGE EXTERNAL,
    ALTER COLUMN payloads SET STORAGE EXTERNAL;

-- The feed: facts of this service with their places.
CREATE TABLE fact (
    position bigint CONSTRAINT fact_pkey PRIMARY KEY, -- place in the feed: dense
    fact_id uuid NOT NULL,
    programme_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    type_name text NOT NULL,           -- full name of the fact's message
    payload bytea NOT NULL,            -- the fact, encoded
    traceparent text NOT NULL,         -- context of the call that caused it
    record_time timestamptz NOT NULL
);

-- Where the feed stands: one row, locked by whoever sequences.
CREATE TABLE feed_head (
    singleton boolean CONSTRAINT feed_head_pkey PRIMARY KEY DEFAULT true CHECK (singleton),
    position bigint NOT NULL
);
INSERT INTO feed_head (position) VALUES (0);

-- How far this service has read the feeds of others; moved in the transaction of the effect.
CREATE TABLE feed_cursor (
    source text CONSTRAINT feed_cursor_pkey PRIMARY KEY,
    position bigint NOT NULL,
    update_time timestamptz NOT NULL
);

-- Facts of others that could not be applied, and the later ones of the same subject, which wait behind them.
CREATE TABLE parked_fact (
    source text NOT NULL,
    position bigint NOT NULL,
    subject_id uuid NOT NULL,
    change bytea NOT NULL,             -- the koc.feed.v1.Change, encoded
    reason text NOT NULL,
    attempts integer NOT NULL,
    next_attempt_time timestamptz NOT NULL,
    CONSTRAINT parked_fact_pkey PRIMARY KEY (source, position)
);
CREATE INDEX parked_fact_subject ON parked_fact (source, subject_id, position);

-- Work of several steps, driven to its end after any crash.
CREATE TABLE job (
    job_id uuid CONSTRAINT job_pkey PRIMARY KEY,
    kind text NOT NULL,
    programme_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    step text NOT NULL,
    attempt integer NOT NULL DEFAULT 1,          -- rises only after a stored refusal
    state jsonb NOT NULL,
    actor text NOT NULL,               -- in whose name its steps act
    traceparent text NOT NULL,
    run_time timestamptz NOT NULL,     -- not before
    lease_id uuid,                     -- who works on it
    lease_until timestamptz,
    failures integer NOT NULL DEFAULT 0,
    last_error text,
    done boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL
);
CREATE INDEX job_due ON job (run_time) WHERE NOT done;
CREATE INDEX job_done ON job (create_time) WHERE done;
CREATE INDEX job_subject ON job (subject_id, kind);
