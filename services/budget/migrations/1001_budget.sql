-- The budget's tables. Money: minor units of the programme's currency. Time: UTC, read through koc_now() alone.
--
-- Lock order of whatever moves money, of one call's operation as of a group's of hundreds: envelopes by id, members (advisory, shared) by
-- hash, member limits by key; what is decided upon, and the time, is read by later statements; then keys of operations in their order. A
-- draw takes before them the advisory locks of its output and its member, and its own row or that of the draw it adds to; an activation
-- its plan's row; what is done by an amendment the rows of its plans by id, then its own.
--
-- Nothing here is partitioned yet. A key that is unique for ever (operation_pkey, ledger_entry_sequence) allows no partitions by time, and
-- partitions by hash would not make the hot path cheaper: our ids are UUIDv7 and sequences rise, so inserts stay at the right edge of
-- their index whatever its size, and lookups go one level deeper for each hundredfold. Only callers' request ids may fall anywhere.

-- What is remembered of the registry's programmes: their currency, which never changes.
CREATE TABLE programme (
    programme_id uuid CONSTRAINT programme_pkey PRIMARY KEY,
    currency_code text NOT NULL CONSTRAINT programme_currency CHECK (currency_code ~ '^[A-Z]{3}$'),
    record_time timestamptz NOT NULL
);

CREATE TABLE plan (
    plan_id uuid CONSTRAINT plan_pkey PRIMARY KEY,
    programme_id uuid NOT NULL CONSTRAINT plan_programme REFERENCES programme,
    display_name text NOT NULL,
    period_start_time timestamptz NOT NULL,
    period_end_time timestamptz NOT NULL,           -- first instant after the period
    state text NOT NULL CONSTRAINT plan_state CHECK (state IN ('DRAFT', 'SUBMITTED', 'APPROVED', 'ACTIVE', 'CLOSED')),
    automatic_draw_limit bigint CONSTRAINT plan_draw_limit CHECK (automatic_draw_limit >= 0), -- NULL: each draw needs a person
    required_approvals integer NOT NULL CONSTRAINT plan_required_approvals CHECK (required_approvals BETWEEN 1 AND 2), -- of different people
    approval_validity_us bigint NOT NULL,           -- microseconds: how long an approval is good for, and an amendment waits
    min_reserve_percent integer NOT NULL,           -- bounds of the reserve's share
    max_reserve_percent integer NOT NULL,
    submitted_by text,
    approved_by text[] NOT NULL DEFAULT '{}',       -- in their order; emptied when it goes back to DRAFT
    approve_times timestamptz[] NOT NULL DEFAULT '{}', -- of each of them
    version bigint NOT NULL,                        -- rises with each change of it; the etag
    create_time timestamptz NOT NULL,
    CONSTRAINT plan_period CHECK (period_start_time < period_end_time),
    CONSTRAINT plan_reserve_percent CHECK (0 <= min_reserve_percent AND min_reserve_percent <= max_reserve_percent AND max_reserve_percent <= 100),
    CONSTRAINT plan_submitter CHECK ((submitted_by IS NULL) = (state = 'DRAFT')),
    CONSTRAINT plan_approvers CHECK (
        CASE state WHEN 'DRAFT' THEN cardinality(approved_by) = 0
                   WHEN 'SUBMITTED' THEN cardinality(approved_by) < required_approvals
                   ELSE cardinality(approved_by) = required_approvals END AND cardinality(approve_times) = cardinality(approved_by)),
    CONSTRAINT plan_different_people CHECK (submitted_by <> ALL (approved_by) AND approved_by[1] <> ALL (approved_by[2:]))
);
CREATE INDEX plan_list ON plan (programme_id, plan_id);
CREATE INDEX plan_active ON plan (programme_id, period_start_time) WHERE state = 'ACTIVE';

-- One hot row for each envelope: a projection of its ledger entries, and the judge of what is available. An envelope with children holds
-- what its children do not: whatever is asked of it with them is a sum, so a reservation in a child touches the child's row alone, and
-- that a parent never falls below the sum of its children is that what it holds itself is never below zero.
CREATE TABLE envelope (
    envelope_id uuid CONSTRAINT envelope_pkey PRIMARY KEY,
    plan_id uuid NOT NULL CONSTRAINT envelope_plan REFERENCES plan,
    programme_id uuid NOT NULL,
    ordinal integer NOT NULL,                       -- place in the plan, from 0
    resource_class text NOT NULL CONSTRAINT envelope_class
        CHECK (resource_class IN ('INCLUSIVE', 'INCENTIVE', 'EXCLUSIVE', 'STRATEGIC_RESERVE')),
    display_name text NOT NULL,
    parent_id uuid CONSTRAINT envelope_parent REFERENCES envelope, -- of the same plan, with a lower ordinal; NULL for a part of the plan itself
    region text,                                    -- ISO 3166-2; NULL for everywhere
    resource_kind text,                             -- NULL for all kinds
    has_children boolean NOT NULL DEFAULT false,    -- then it takes no reservations
    planned bigint NOT NULL CONSTRAINT envelope_planned CHECK (planned >= 0), -- what activation allocates to it, without its children
    allocated bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    committed bigint NOT NULL DEFAULT 0,
    spent bigint NOT NULL DEFAULT 0,
    sequence bigint NOT NULL DEFAULT 0,             -- that of its last ledger entry
    overrun_limit bigint NOT NULL DEFAULT 0 CONSTRAINT envelope_overrun_limit CHECK (overrun_limit >= 0), -- how far available may fall below zero
    CONSTRAINT envelope_ordinal UNIQUE (plan_id, ordinal),
    CONSTRAINT envelope_name UNIQUE (plan_id, display_name),
    CONSTRAINT envelope_balances CHECK (allocated >= 0 AND reserved >= 0 AND committed >= 0 AND spent >= 0),
    CONSTRAINT envelope_available CHECK (allocated - reserved - committed - spent + overrun_limit >= 0),
    CONSTRAINT envelope_parent_holds_nothing CHECK (NOT has_children OR reserved + committed + spent = 0)
) WITH (fillfactor = 50);                           -- room for updates that touch no index
CREATE INDEX envelope_programme ON envelope (programme_id, envelope_id);

-- Money held for one purpose: a projection of its ledger entries. It is written under its envelope's lock only, by the code that checks
-- the envelope, and so does without a foreign key on the hot path.
CREATE TABLE reservation (
    reservation_id uuid CONSTRAINT reservation_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    envelope_id uuid NOT NULL,
    member_id uuid,                                 -- for whom; NULL for no member
    purpose text NOT NULL,                          -- the caller's reference, e.g. assignment/…
    amount bigint NOT NULL,                         -- all that was ever reserved
    reserved bigint NOT NULL,
    committed bigint NOT NULL,
    spent bigint NOT NULL,
    released bigint NOT NULL,
    recoverable bigint NOT NULL,                    -- part of released: what expiry gave back and a Commit may still reserve again
    expire_time timestamptz NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT reservation_sum CHECK (amount = reserved + committed + spent + released),
    CONSTRAINT reservation_parts CHECK (amount > 0 AND reserved >= 0 AND committed >= 0 AND spent >= 0 AND released >= 0),
    CONSTRAINT reservation_recoverable CHECK (recoverable BETWEEN 0 AND released)
) WITH (fillfactor = 70);
CREATE INDEX reservation_list ON reservation (programme_id, reservation_id);
CREATE INDEX reservation_envelope ON reservation (envelope_id, reservation_id);
CREATE INDEX reservation_member ON reservation (member_id, reservation_id) WHERE member_id IS NOT NULL;
CREATE INDEX reservation_due ON reservation (expire_time) WHERE reserved > 0;

-- What was asked of the ledger and what came of it, for good: by it a retry is recognised and gets its first answer.
-- Append-only for the application role.
CREATE TABLE operation (
    operation_id uuid NOT NULL,
    programme_id uuid NOT NULL,
    method text NOT NULL,                           -- full name of the request message, or of the inner cause
    request_id uuid NOT NULL,
    request_hash bytea NOT NULL,                    -- SHA-256 of the encoded request
    reservation_id uuid,                            -- NULL for allocations
    -- How the reservation stood after it; NULL for allocations and refusals.
    amount bigint,
    reserved bigint,
    committed bigint,
    spent bigint,
    released bigint,
    expire_time timestamptz,
    available_after bigint,                         -- what the envelope had available after it; NULL for refusals
    refusal jsonb,                                  -- why not, with figures; NULL when done
    payment_reference text,                         -- of a Spend: the invoice or payment
    actor text NOT NULL,                            -- the person or system that acted
    client text NOT NULL,                           -- the token's subject: the platform that called
    trace_id text,
    operation_time timestamptz NOT NULL,
    CONSTRAINT operation_pkey PRIMARY KEY (programme_id, method, request_id),
    CONSTRAINT operation_outcome CHECK ((available_after IS NULL) <> (refusal IS NULL))
);

-- Every movement of money, double entry: an amount leaves one account of an envelope for another. Append-only, for everyone.
CREATE TABLE ledger_entry (
    entry_id uuid CONSTRAINT ledger_entry_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    envelope_id uuid NOT NULL,
    envelope_sequence bigint NOT NULL,              -- dense in the envelope, from 1
    kind text NOT NULL CONSTRAINT ledger_entry_kind
        CHECK (kind IN ('ALLOCATE', 'DEALLOCATE', 'RESERVE', 'COMMIT', 'SPEND', 'RELEASE', 'EXPIRE', 'REVERSE_COMMIT', 'REVERSE_SPEND',
                        'REFUND')),
    credit_account text NOT NULL,                   -- where the amount comes from
    debit_account text NOT NULL,                    -- where it goes
    amount bigint NOT NULL CONSTRAINT ledger_entry_amount CHECK (amount > 0),
    reservation_id uuid CONSTRAINT ledger_entry_reservation CHECK ((reservation_id IS NULL) = (kind IN ('ALLOCATE', 'DEALLOCATE'))),
    available_after bigint NOT NULL,                -- below zero when the overrun is used; the envelope's row judges how far
    operation_id uuid NOT NULL,                     -- what caused it
    actor text NOT NULL,
    entry_time timestamptz NOT NULL,
    reverses_entry_id uuid,                         -- the entry of the same reservation that this one undoes, in whole or in part
    reversal_reason text CONSTRAINT ledger_entry_reason CHECK (reversal_reason IN
        ('WRONG_AMOUNT', 'WRONG_RESERVATION', 'DUPLICATE', 'PAYMENT_RETURNED', 'DELIVERY_WITHDRAWN')),
    CONSTRAINT ledger_entry_reversal CHECK ((reverses_entry_id IS NOT NULL) = (kind IN ('REVERSE_COMMIT', 'REVERSE_SPEND', 'REFUND'))
        AND (reverses_entry_id IS NULL) = (reversal_reason IS NULL)),
    CONSTRAINT ledger_entry_sequence UNIQUE (envelope_id, envelope_sequence),
    CONSTRAINT ledger_entry_accounts CHECK ((kind, credit_account, debit_account) IN (
        ('ALLOCATE', 'FUNDING', 'AVAILABLE'), ('DEALLOCATE', 'AVAILABLE', 'FUNDING'),
        ('RESERVE', 'AVAILABLE', 'RESERVED'), ('COMMIT', 'RESERVED', 'COMMITTED'),
        ('SPEND', 'COMMITTED', 'SPENT'), ('RELEASE', 'RESERVED', 'AVAILABLE'), ('EXPIRE', 'RESERVED', 'AVAILABLE'),
        ('REVERSE_COMMIT', 'COMMITTED', 'RESERVED'), ('REVERSE_SPEND', 'SPENT', 'COMMITTED'), ('REFUND', 'SPENT', 'AVAILABLE')))
);
-- An entry is undone once at most; who undoes it stands in the same envelope.
CREATE UNIQUE INDEX ledger_entry_reversed ON ledger_entry (envelope_id, reverses_entry_id) WHERE reverses_entry_id IS NOT NULL;
CREATE INDEX ledger_entry_of_reservation ON ledger_entry (reservation_id, envelope_sequence) WHERE reservation_id IS NOT NULL;

-- The hash chain of a programme's entries, in the order of the feed. Append-only, for everyone. Only the sequencer writes it, from entries
-- that it has just read; a foreign key would look each of them up once more.
CREATE TABLE ledger_chain (
    programme_id uuid NOT NULL,
    position bigint NOT NULL,                       -- dense in the programme, from 1
    entry_id uuid NOT NULL,
    hash bytea NOT NULL CONSTRAINT ledger_chain_hash CHECK (length(hash) = 32), -- SHA-256(the hash before ‖ the entry's canonical bytes)
    CONSTRAINT ledger_chain_pkey PRIMARY KEY (programme_id, position),
    CONSTRAINT ledger_chain_once UNIQUE (entry_id)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER ledger_entry_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_chain_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_chain
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER operation_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON operation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How much may be in use for a member over a period. Periods of one member do not overlap; the member's advisory lock guards that.
CREATE TABLE member_limit (
    programme_id uuid NOT NULL CONSTRAINT member_limit_programme REFERENCES programme,
    member_id uuid NOT NULL,
    period_start_time timestamptz NOT NULL,
    period_end_time timestamptz NOT NULL,           -- first instant after the period
    amount bigint NOT NULL CONSTRAINT member_limit_amount CHECK (amount >= 0), -- the most that may be in use
    used bigint NOT NULL CONSTRAINT member_limit_used CHECK (used >= 0), -- in use in plans whose period lies in this one
    decision_id uuid,                               -- where it comes from; NULL when set by hand
    reason text NOT NULL,
    set_by text NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT member_limit_pkey PRIMARY KEY (programme_id, member_id, period_start_time),
    CONSTRAINT member_limit_period CHECK (period_start_time < period_end_time)
) WITH (fillfactor = 70);

CREATE TABLE reserve_draw (
    reserve_draw_id uuid CONSTRAINT reserve_draw_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    plan_id uuid NOT NULL CONSTRAINT reserve_draw_plan REFERENCES plan,
    envelope_id uuid NOT NULL CONSTRAINT reserve_draw_envelope REFERENCES envelope, -- the plan's reserve
    kind text NOT NULL CONSTRAINT reserve_draw_kind CHECK (kind IN ('VIRAL_BOOST', 'POP_UP_EVENT', 'OTHER')),
    -- That an approved one is wholly spent is read from its reservation.
    state text NOT NULL CONSTRAINT reserve_draw_state CHECK (state IN ('REQUESTED', 'APPROVED', 'REJECTED', 'LAPSED')),
    amount bigint NOT NULL CONSTRAINT reserve_draw_amount CHECK (amount > 0),
    member_id uuid,
    output_id uuid,
    evidence jsonb NOT NULL,                        -- [{"name": …, "value": …}]
    decide_by_time timestamptz NOT NULL,
    requested_by text NOT NULL,
    policy_version bigint NOT NULL,                 -- of the plan's reserve policy: what it is decided by
    approvals_needed smallint NOT NULL CONSTRAINT reserve_draw_needed CHECK (approvals_needed BETWEEN 0 AND 2),
    automatic boolean NOT NULL,                     -- approved without a person
    decided_by text,                                -- the person who decided, the last of several; NULL before, and when none did
    decision_reason text,
    reservation_id uuid,
    first_draw_id uuid CONSTRAINT reserve_draw_first REFERENCES reserve_draw, -- what it adds to; NULL unless it is a top-up
    report_due_time timestamptz,                    -- until when its outcome is to be reported; NULL unless approved
    create_time timestamptz NOT NULL,
    CONSTRAINT reserve_draw_held CHECK ((reservation_id IS NOT NULL) = (state = 'APPROVED')),
    CONSTRAINT reserve_draw_due CHECK ((report_due_time IS NOT NULL) = (state = 'APPROVED')),
    CONSTRAINT reserve_draw_reason CHECK ((decision_reason IS NULL) = (state = 'REQUESTED')),
    CONSTRAINT reserve_draw_decided CHECK ((decided_by IS NOT NULL) = (state = 'REJECTED' OR (state = 'APPROVED' AND NOT automatic))),
    CONSTRAINT reserve_draw_automatic CHECK (automatic = (approvals_needed = 0) AND (state = 'APPROVED' OR NOT automatic)),
    CONSTRAINT reserve_draw_two_people CHECK (decided_by <> requested_by)
);
CREATE INDEX reserve_draw_list ON reserve_draw (programme_id, reserve_draw_id);
CREATE INDEX reserve_draw_output ON reserve_draw (programme_id, output_id, create_time) WHERE output_id IS NOT NULL;
CREATE INDEX reserve_draw_member ON reserve_draw (programme_id, member_id, create_time) WHERE member_id IS NOT NULL;
CREATE INDEX reserve_draw_top_up ON reserve_draw (first_draw_id) WHERE first_draw_id IS NOT NULL;
CREATE INDEX reserve_draw_due ON reserve_draw (programme_id, report_due_time) WHERE state = 'APPROVED';
CREATE UNIQUE INDEX reserve_draw_reservation ON reserve_draw (reservation_id) WHERE reservation_id IS NOT NULL;
