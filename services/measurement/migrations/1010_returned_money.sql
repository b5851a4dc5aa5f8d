-- Money owed for an assignment, below zero where a reversal took it back. Append-only; the key makes a posting that is told twice count once.
CREATE TABLE assignment_posting (
    entry_id uuid CONSTRAINT assignment_posting_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    assignment_id uuid NOT NULL,
    amount_minor bigint NOT NULL,
    record_time timestamptz NOT NULL
);
CREATE INDEX assignment_posting_assignment ON assignment_posting (assignment_id);

ALTER TABLE output
    ADD COLUMN returned_minor bigint NOT NULL DEFAULT 0, -- its part of what reversals took back of the assignment's money
    ADD CONSTRAINT output_returned CHECK (returned_minor BETWEEN 0 AND reward_minor);
