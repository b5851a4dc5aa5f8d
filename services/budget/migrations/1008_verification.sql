-- Verifications of a programme's ledger that go on in the background: each a job that is driven to its end after any crash. Where it goes on
-- stands in the job's state.
CREATE TABLE ledger_verification (
    verification_id uuid CONSTRAINT ledger_verification_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    state text NOT NULL CONSTRAINT ledger_verification_state CHECK (state IN ('RUNNING', 'PASSED', 'FAILED', 'CANCELLED')),
    entry_count bigint NOT NULL,                    -- of the ledger when it began
    link_count bigint NOT NULL,                     -- of the chain when it began
    verified_links bigint NOT NULL DEFAULT 0,       -- this and the next three: how far it is; the ledger grows meanwhile
    verified_entries bigint NOT NULL DEFAULT 0,
    verified_reservations bigint NOT NULL DEFAULT 0,
    verified_limits bigint NOT NULL DEFAULT 0,
    chain_head bytea NOT NULL CONSTRAINT ledger_verification_head CHECK (length(chain_head) = 32), -- hash of the last verified link
    finding text,                                   -- what is wrong, in words; NULL unless FAILED
    bad_entry_id uuid,                              -- where; NULL also when nothing says which
    requested_by text NOT NULL,
    start_time timestamptz NOT NULL,                -- what was in the ledger then is covered
    end_time timestamptz,
    CONSTRAINT ledger_verification_end CHECK ((end_time IS NULL) = (state = 'RUNNING')),
    CONSTRAINT ledger_verification_finding CHECK ((finding IS NOT NULL) = (state = 'FAILED') AND (finding IS NOT NULL OR bad_entry_id IS NULL))
);
CREATE INDEX ledger_verification_list ON ledger_verification (programme_id, verification_id);
-- One at a time: a second would only take longer.
CREATE UNIQUE INDEX ledger_verification_running ON ledger_verification (programme_id) WHERE state = 'RUNNING';
