-- Grants: what is handed out to whom, what it takes (stock, bookings, money) and what it costs.
--
-- Lock order of whatever moves a grant: the grant, the resource's stock, the booking by its exclusion, then as the ledger does.

-- One car, crew or seat.
CREATE TABLE resource_unit (
    unit_id uuid CONSTRAINT resource_unit_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    resource_id uuid NOT NULL CONSTRAINT resource_unit_resource REFERENCES resource,
    slot bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT resource_unit_slot UNIQUE, -- a small number for the calendar, see booking.span
    display_name text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT resource_unit_name UNIQUE (resource_id, display_name)
);

-- What there is of a kit: a projection of its movements.
CREATE TABLE stock (
    resource_id uuid CONSTRAINT stock_pkey PRIMARY KEY CONSTRAINT stock_resource REFERENCES resource,
    on_hand bigint NOT NULL CONSTRAINT stock_on_hand CHECK (on_hand BETWEEN 0 AND 1000000000000)
);

-- Estimates that grants rest on. Append-only, for everyone.
CREATE TABLE cost_estimate (
    estimate_id uuid CONSTRAINT cost_estimate_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    resource_id uuid NOT NULL,
    resource_version bigint NOT NULL,
    usage jsonb NOT NULL,                           -- what was asked
    estimate jsonb NOT NULL,                        -- what came of it, with the version of each rate table
    create_time timestamptz NOT NULL,
    CONSTRAINT cost_estimate_resource FOREIGN KEY (resource_id, resource_version) REFERENCES resource_version
);
CREATE TRIGGER cost_estimate_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON cost_estimate
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE resource_grant (
    grant_id uuid CONSTRAINT resource_grant_pkey PRIMARY KEY,
    programme_id uuid NOT NULL CONSTRAINT resource_grant_programme REFERENCES programme,
    member_id uuid NOT NULL,
    resource_id uuid NOT NULL CONSTRAINT resource_grant_resource REFERENCES resource,
    kind text NOT NULL,                             -- the resource's
    state text NOT NULL CONSTRAINT resource_grant_state CHECK (state IN (
        'PENDING_APPROVAL', 'REJECTED', 'CANCELLED', 'ISSUED', 'SHIPPED', 'DELIVERED', 'BOOKED', 'HANDED_OVER', 'RETURNED', 'SETTLED',
        'FULFILLED')),
    usage jsonb NOT NULL,
    session_date date,                              -- the day of a booked seat
    estimate_id uuid CONSTRAINT resource_grant_estimate REFERENCES cost_estimate, -- NULL for what costs nothing to issue
    restated_id uuid CONSTRAINT resource_grant_restated REFERENCES cost_estimate,
    envelope_id uuid,
    reservation_id uuid,
    extra_reservation_id uuid,                      -- what it cost above the estimate
    unit_id uuid CONSTRAINT resource_grant_unit REFERENCES resource_unit,
    mismatches text[] NOT NULL,
    reason text NOT NULL,
    eligibility_reason text NOT NULL,               -- why although the member does not fit
    shipping_reference text,
    nda_reference text,
    embargo_until_time timestamptz,
    requested_by text NOT NULL,
    decided_by text,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT resource_grant_two_people CHECK (decided_by <> requested_by),
    CONSTRAINT resource_grant_reason CHECK (cardinality(mismatches) = 0 OR eligibility_reason <> ''),
    CONSTRAINT resource_grant_shipped CHECK ((shipping_reference IS NOT NULL) = (state IN ('SHIPPED', 'DELIVERED')))
);
CREATE INDEX resource_grant_list ON resource_grant (programme_id, grant_id);
CREATE INDEX resource_grant_member ON resource_grant (member_id, grant_id);
CREATE INDEX resource_grant_of_resource ON resource_grant (resource_id, grant_id);

-- A unit is taken from its first day up to, and without, its last. Two open bookings of a unit never share a day: `span` maps unit and
-- days onto one line, 2^22 days to a unit, so that a range without any extension holds it.
CREATE TABLE booking (
    grant_id uuid CONSTRAINT booking_pkey PRIMARY KEY CONSTRAINT booking_grant REFERENCES resource_grant,
    unit_id uuid NOT NULL CONSTRAINT booking_unit REFERENCES resource_unit,
    slot bigint NOT NULL,                           -- that of the unit
    start_date date NOT NULL,
    end_date date NOT NULL,
    state text NOT NULL CONSTRAINT booking_state CHECK (state IN ('OPEN', 'ENDED', 'CANCELLED')),
    span int8range NOT NULL GENERATED ALWAYS AS (
        int8range(slot * 4194304 + (start_date - DATE '1900-01-01'), slot * 4194304 + (end_date - DATE '1900-01-01'))) STORED,
    CONSTRAINT booking_days CHECK (start_date < end_date AND start_date >= DATE '1900-01-01' AND end_date < DATE '9999-12-31'),
    CONSTRAINT booking_overlap EXCLUDE USING gist (span WITH &&) WHERE (state = 'OPEN')
);
CREATE INDEX booking_calendar ON booking (unit_id, start_date);

-- Append-only, for everyone.
CREATE TABLE stock_movement (
    stock_movement_id uuid CONSTRAINT stock_movement_pkey PRIMARY KEY,
    resource_id uuid NOT NULL CONSTRAINT stock_movement_resource REFERENCES resource,
    quantity bigint NOT NULL CONSTRAINT stock_movement_quantity CHECK (quantity <> 0), -- below zero for what went out
    on_hand_after bigint NOT NULL CONSTRAINT stock_movement_after CHECK (on_hand_after >= 0),
    grant_id uuid,                                  -- NULL for a receipt
    reference text NOT NULL,                        -- the delivery note; empty for grants
    actor text NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX stock_movement_list ON stock_movement (resource_id, stock_movement_id);
CREATE TRIGGER stock_movement_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON stock_movement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Costs without cash, double entry, outside of every envelope. Append-only, for everyone.
CREATE TABLE memo_entry (
    memo_entry_id uuid CONSTRAINT memo_entry_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    grant_id uuid NOT NULL CONSTRAINT memo_entry_grant REFERENCES resource_grant,
    estimate_id uuid NOT NULL CONSTRAINT memo_entry_estimate REFERENCES cost_estimate,
    ordinal integer NOT NULL,                       -- which item of the estimate, from 0: each is posted once
    item text NOT NULL,                             -- its name
    credit_account text NOT NULL,
    debit_account text NOT NULL,
    amount bigint NOT NULL CONSTRAINT memo_entry_amount CHECK (amount > 0),
    actor text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT memo_entry_once UNIQUE (estimate_id, ordinal),
    CONSTRAINT memo_entry_accounts CHECK (credit_account IN ('CONSUMPTION', 'OPPORTUNITY') AND debit_account = 'GRANTS')
);
CREATE INDEX memo_entry_list ON memo_entry (programme_id, memo_entry_id);
CREATE TRIGGER memo_entry_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON memo_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
