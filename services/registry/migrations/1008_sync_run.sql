-- Runs of a sync, deletions that arrive by them, and the rows that were rejected.

-- What the source system last said of an identity. Rows from before this have no time: the source has the person.
ALTER TABLE external_identity
    ADD COLUMN source_time timestamptz,             -- of the last word; NULL before there was one
    ADD COLUMN deleted boolean NOT NULL DEFAULT false;  -- the source no longer has the person

-- Deletions of identities that nobody had: if an earlier row of the person comes later, it is known to be outdated. Personal data.
CREATE TABLE identity_tombstone (
    programme_id uuid NOT NULL,
    source_system text NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    source_time timestamptz NOT NULL,  -- of the deletion
    CONSTRAINT identity_tombstone_pkey PRIMARY KEY (programme_id, source_system, external_id)
);

ALTER TABLE member ADD COLUMN suspension_cause text;       -- NULL while it is active; a caller's, too, from before this
ALTER TABLE member ADD CONSTRAINT member_suspension_cause CHECK (suspension_cause IN ('CALLER', 'SOURCE_DELETED'))
    NOT VALID;                         -- all are NULL

CREATE TABLE sync_run (
    programme_id uuid NOT NULL CONSTRAINT sync_run_programme REFERENCES programme,
    sync_run_id uuid NOT NULL,         -- UUIDv7
    source_system text NOT NULL,
    run_name text NOT NULL,            -- the caller's
    mode text NOT NULL CONSTRAINT sync_run_mode CHECK (mode IN ('INCREMENTAL', 'FULL')),
    validate_only boolean NOT NULL,
    as_of timestamptz,                 -- when the export was made
    max_delete_percent integer NOT NULL,
    state text NOT NULL CONSTRAINT sync_run_state
        CHECK (state IN ('OPEN', 'CHECKING', 'HELD', 'SWEEPING', 'ENDED', 'LAPSED')),
    committed_through bigint NOT NULL, -- number of the last batch; 0 before the first
    counts jsonb NOT NULL,             -- outcome -> rows
    unidentified_rows bigint NOT NULL, -- whose id could not be read
    source_identities bigint NOT NULL, -- of the source and not deleted, when it was checked
    unseen_identities bigint NOT NULL, -- those of them that it may delete
    swept_identities bigint NOT NULL,  -- that it deleted
    walked_to text COLLATE "C",        -- the external id up to which its check or sweep is; NULL before and after. Personal data
    actor text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    end_time timestamptz,
    CONSTRAINT sync_run_pkey PRIMARY KEY (programme_id, sync_run_id),
    CONSTRAINT sync_run_name UNIQUE (programme_id, source_system, run_name),
    CONSTRAINT sync_run_as_of CHECK (mode <> 'FULL' OR as_of IS NOT NULL)
);

CREATE INDEX sync_run_waiting ON sync_run (update_time) WHERE state IN ('OPEN', 'HELD');
CREATE INDEX sync_run_lapsed ON sync_run (programme_id, sync_run_id) WHERE state = 'LAPSED';

-- Batches that were committed, with their answers. Kept for some days.
CREATE TABLE sync_batch (
    programme_id uuid NOT NULL,
    sync_run_id uuid NOT NULL,
    batch_number bigint NOT NULL,
    content_hash bytea NOT NULL,       -- SHA-256 of the encoded batch
    answer bytea NOT NULL,             -- encoded SyncMembersResponse without personal data
    create_time timestamptz NOT NULL,
    CONSTRAINT sync_batch_pkey PRIMARY KEY (programme_id, sync_run_id, batch_number),
    CONSTRAINT sync_batch_run FOREIGN KEY (programme_id, sync_run_id) REFERENCES sync_run
);
CREATE INDEX sync_batch_create_time ON sync_batch (create_time);

-- Whom a full run has seen, until it ends. Personal data.
CREATE TABLE sync_seen (
    programme_id uuid NOT NULL,
    sync_run_id uuid NOT NULL,
    external_id text COLLATE "C" NOT NULL,
    CONSTRAINT sync_seen_pkey PRIMARY KEY (programme_id, sync_run_id, external_id),
    CONSTRAINT sync_seen_run FOREIGN KEY (programme_id, sync_run_id) REFERENCES sync_run
);

-- Rows that were rejected and did not go in since. Personal data; kept for 30 days.
CREATE TABLE rejected_row (
    programme_id uuid NOT NULL,
    sync_run_id uuid NOT NULL,
    batch_number bigint NOT NULL,
    row_index integer NOT NULL,
    content bytea NOT NULL,            -- encoded MemberRow
    violations jsonb NOT NULL,         -- [{field, rule, description}]
    create_time timestamptz NOT NULL,
    CONSTRAINT rejected_row_pkey PRIMARY KEY (programme_id, sync_run_id, batch_number, row_index),
    CONSTRAINT rejected_row_run FOREIGN KEY (programme_id, sync_run_id) REFERENCES sync_run
);
CREATE INDEX rejected_row_create_time ON rejected_row (create_time);
