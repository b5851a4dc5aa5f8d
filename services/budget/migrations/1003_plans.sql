-- Amendments of active plans, and the ledger's balances at times past.

-- A proposal to change an active plan.
CREATE TABLE amendment (
    amendment_id uuid CONSTRAINT amendment_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    plan_id uuid NOT NULL CONSTRAINT amendment_plan REFERENCES plan,
    kind text NOT NULL CONSTRAINT amendment_kind CHECK (kind IN ('CHANGE', 'TRANSFER', 'CLOSE')),
    state text NOT NULL CONSTRAINT amendment_state CHECK (state IN ('PROPOSED', 'APPLIED', 'REJECTED', 'WITHDRAWN', 'LAPSED')),
    base_version bigint NOT NULL,                   -- the plan's version that it was made upon
    total_before bigint NOT NULL,
    total_after bigint NOT NULL,
    open_reservations text CONSTRAINT amendment_open CHECK (open_reservations IN ('REFUSE', 'RELEASE')),
    carry_over_plan_id uuid CONSTRAINT amendment_carry_over REFERENCES plan, -- NULL: back to funding
    reason text NOT NULL,
    proposed_by text NOT NULL,
    approved_by text[] NOT NULL DEFAULT '{}',       -- in their order
    approve_times timestamptz[] NOT NULL DEFAULT '{}', -- of each of them
    decided_by text,                                -- NULL before, and when no person did: it lapsed, or needed nobody
    decision_reason text,
    decide_by_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT amendment_closing CHECK ((open_reservations IS NOT NULL) = (kind = 'CLOSE')),
    CONSTRAINT amendment_carries CHECK (carry_over_plan_id IS NULL OR (kind = 'CLOSE' AND carry_over_plan_id <> plan_id)),
    CONSTRAINT amendment_decided CHECK ((decision_reason IS NULL) = (state = 'PROPOSED') AND (decided_by IS NULL OR decision_reason IS NOT NULL)),
    CONSTRAINT amendment_approvals CHECK (cardinality(approve_times) = cardinality(approved_by)),
    CONSTRAINT amendment_different_people CHECK (proposed_by <> ALL (approved_by) AND approved_by[1] <> ALL (approved_by[2:]))
);
CREATE INDEX amendment_list ON amendment (programme_id, amendment_id);
CREATE INDEX amendment_of_plan ON amendment (plan_id, amendment_id);

-- What an amendment does to one envelope.
CREATE TABLE amendment_line (
    amendment_id uuid NOT NULL CONSTRAINT amendment_line_amendment REFERENCES amendment,
    ordinal integer NOT NULL,                       -- from 0; parents before their children
    envelope_id uuid NOT NULL,                      -- a new one comes to be when it is applied
    plan_id uuid NOT NULL,                          -- the amended plan, or the one that is carried over into
    display_name text NOT NULL,
    resource_class text NOT NULL,
    before bigint NOT NULL,                         -- what it holds with its children
    after bigint NOT NULL,
    own_change bigint NOT NULL,                     -- what is put into it itself, or taken out of it when below zero
    overrun_before bigint NOT NULL,                 -- how far its available may fall below zero
    overrun_after bigint NOT NULL,
    is_new boolean NOT NULL,
    parent_id uuid,                                 -- of a new one
    region text,
    resource_kind text,
    CONSTRAINT amendment_line_pkey PRIMARY KEY (amendment_id, ordinal)
);

-- How an envelope stood after some of its entries, so that its balances at a time past are a sum of few of them. Written beside the hot
-- path; it says nothing that the entries do not.
CREATE TABLE envelope_checkpoint (
    envelope_id uuid NOT NULL,
    envelope_sequence bigint NOT NULL,              -- of the entry that it stands after
    entry_time timestamptz NOT NULL,                -- of that entry
    allocated bigint NOT NULL,
    reserved bigint NOT NULL,
    committed bigint NOT NULL,
    spent bigint NOT NULL,
    CONSTRAINT envelope_checkpoint_pkey PRIMARY KEY (envelope_id, envelope_sequence)
);
