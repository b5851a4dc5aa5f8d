-- Files of members on their way in.
CREATE TABLE member_import (
    programme_id uuid NOT NULL,
    import_id uuid NOT NULL,           -- UUIDv7
    sync_run_id uuid NOT NULL,
    state text NOT NULL CONSTRAINT member_import_state
        CHECK (state IN ('RECEIVING', 'RUNNING', 'ENDED', 'CANCELLED', 'LINE_TOO_LONG')),
    received_bytes bigint NOT NULL,    -- the offset of the next chunk
    read_bytes bigint NOT NULL,        -- whose rows were applied
    read_lines bigint NOT NULL,
    actor text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    end_time timestamptz,
    CONSTRAINT member_import_pkey PRIMARY KEY (programme_id, import_id),
    CONSTRAINT member_import_run_once UNIQUE (programme_id, sync_run_id),
    CONSTRAINT member_import_run FOREIGN KEY (programme_id, sync_run_id) REFERENCES sync_run
);
CREATE INDEX member_import_receiving ON member_import (update_time) WHERE state = 'RECEIVING';

-- The bytes of a file, without gaps, until its import ends. Personal data.
CREATE TABLE member_import_chunk (
    programme_id uuid NOT NULL,
    import_id uuid NOT NULL,
    chunk_offset bigint NOT NULL,      -- where in the file it begins
    content bytea NOT NULL,
    CONSTRAINT member_import_chunk_pkey PRIMARY KEY (programme_id, import_id, chunk_offset),
    CONSTRAINT member_import_chunk_import FOREIGN KEY (programme_id, import_id) REFERENCES member_import
);
-- Parts of it are read again and again: pressed, each would be unpacked whole.
ALTER TABLE member_import_chunk ALTER COLUMN content SET STORAGE EXTERNAL;
