-- What the measurement service keeps. Ids of members, assignments and briefs come from other services and refer to nothing here.
-- Lock order: programme, then outputs by id, then signals and decisions.

-- Programmes that are measured. The row is the lock under which versions are numbered and periods decided.
CREATE TABLE programme (
    programme_id uuid CONSTRAINT programme_pkey PRIMARY KEY,
    currency_code text NOT NULL,              -- ISO 4217, as the registry has it; it never changes there
    value_model_version integer NOT NULL,     -- the active version
    decision_policy_version integer NOT NULL, -- the active version
    create_time timestamptz NOT NULL
);

-- Versions of the value model. Append-only.
CREATE TABLE value_model (
    programme_id uuid NOT NULL,
    version integer NOT NULL,
    parameters json NOT NULL,                 -- as text, so that its hash can be computed again
    actor text NOT NULL,
    reason text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT value_model_pkey PRIMARY KEY (programme_id, version),
    CONSTRAINT value_model_programme FOREIGN KEY (programme_id) REFERENCES programme
);

-- Versions of the decision policy. Append-only.
CREATE TABLE decision_policy (
    programme_id uuid NOT NULL,
    version integer NOT NULL,
    parameters json NOT NULL,                 -- the thresholds, as text, so that their hash can be computed again
    automatic_actions text[] NOT NULL,        -- applied without a person's approval; REDUCE never is
    max_draw_per_output_minor bigint,         -- NULL: signals open no draw
    actor text NOT NULL,
    reason text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT decision_policy_pkey PRIMARY KEY (programme_id, version),
    CONSTRAINT decision_policy_programme FOREIGN KEY (programme_id) REFERENCES programme,
    CONSTRAINT decision_policy_draw CHECK (max_draw_per_output_minor >= 0)
);

-- Accepted deliverables. No reference to programme: an assignment may be settled before its programme is known here.
CREATE TABLE output (
    output_id uuid CONSTRAINT output_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    assignment_id uuid NOT NULL,
    brief_id uuid NOT NULL,
    deliverable_key text NOT NULL,
    deliverable_kind text NOT NULL,           -- e.g. DELIVERABLE_KIND_ARTICLE
    platform text NOT NULL,                   -- empty: on none
    tier_id text NOT NULL,                    -- the member's when it was offered
    publish_time timestamptz NOT NULL,
    currency_code text NOT NULL,
    reward_minor bigint NOT NULL,             -- its part of what the assignment earned
    create_time timestamptz NOT NULL,
    -- A settled assignment that is told twice makes no second output.
    CONSTRAINT output_deliverable UNIQUE (assignment_id, deliverable_key),
    CONSTRAINT output_reward CHECK (reward_minor >= 0)
);
CREATE INDEX output_programme ON output (programme_id, output_id);
CREATE INDEX output_member ON output (programme_id, member_id, output_id);
CREATE INDEX output_publish_time ON output (programme_id, publish_time);

-- What an output should reach.
CREATE TABLE output_target (
    output_id uuid NOT NULL,
    ordinal integer NOT NULL,
    metric smallint NOT NULL,
    target_value bigint NOT NULL,
    within_days integer NOT NULL,             -- from publication
    CONSTRAINT output_target_pkey PRIMARY KEY (output_id, ordinal),
    CONSTRAINT output_target_output FOREIGN KEY (output_id) REFERENCES output,
    CONSTRAINT output_target_value CHECK (target_value > 0)
);

-- Readings of counters, for good. Append-only. The key is the reading's identity.
CREATE TABLE observation (
    output_id uuid NOT NULL,
    metric smallint NOT NULL,                 -- number in koc.measurement.v1.Metric
    paid boolean NOT NULL,
    observe_time timestamptz NOT NULL,        -- when it was read at the source
    value bigint NOT NULL,                    -- total since publication
    record_time timestamptz NOT NULL,
    CONSTRAINT observation_pkey PRIMARY KEY (output_id, metric, paid, observe_time),
    CONSTRAINT observation_output FOREIGN KEY (output_id) REFERENCES output,
    CONSTRAINT observation_value CHECK (value >= 0)
);

-- The latest reading of each counter.
CREATE TABLE metric_total (
    output_id uuid NOT NULL,
    metric smallint NOT NULL,
    paid boolean NOT NULL,
    value bigint NOT NULL,
    observe_time timestamptz NOT NULL,
    adjusted boolean NOT NULL,                -- some reading is lower than one before it
    CONSTRAINT metric_total_pkey PRIMARY KEY (output_id, metric, paid),
    CONSTRAINT metric_total_output FOREIGN KEY (output_id) REFERENCES output
);

-- What the spike detector remembers of an output's organic views; of constant size.
CREATE TABLE spike_state (
    output_id uuid CONSTRAINT spike_state_pkey PRIMARY KEY,
    state jsonb NOT NULL,
    CONSTRAINT spike_state_output FOREIGN KEY (output_id) REFERENCES output
);

-- Spikes that were found, and what came of the draw that the strong ones ask for.
CREATE TABLE signal (
    signal_id uuid CONSTRAINT signal_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    output_id uuid NOT NULL,
    metric smallint NOT NULL,
    level text NOT NULL,
    score double precision NOT NULL,          -- -log10 of the tail probability
    ratio double precision NOT NULL,          -- observed over expected
    window_count double precision NOT NULL,
    expected_count double precision NOT NULL,
    window_hours double precision NOT NULL,   -- time that the window spans
    observe_time timestamptz NOT NULL,
    draw_state text NOT NULL,
    reserve_draw_id uuid,                     -- the budget's; NULL unless requested
    draw_amount_minor bigint,                 -- what was asked; NULL unless asked
    draw_reason text NOT NULL,
    currency_code text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT signal_output FOREIGN KEY (output_id) REFERENCES output,
    CONSTRAINT signal_level CHECK (level IN ('NOTIFY', 'MONEY')),
    CONSTRAINT signal_draw_state CHECK (draw_state IN ('NONE', 'PENDING', 'REQUESTED', 'REFUSED')),
    CONSTRAINT signal_draw CHECK ((draw_state = 'REQUESTED') = (reserve_draw_id IS NOT NULL))
);
CREATE INDEX signal_programme ON signal (programme_id, signal_id);
CREATE INDEX signal_by_output ON signal (output_id, signal_id);

-- Which output a draw on the reserve is for, as the budget tells it. May come after the draw's postings.
CREATE TABLE reserve_draw (
    reserve_draw_id uuid CONSTRAINT reserve_draw_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    output_id uuid NOT NULL,
    dropped boolean NOT NULL                  -- rejected, or lapsed undecided: it asks for nothing any more
);
CREATE INDEX reserve_draw_output ON reserve_draw (output_id);

-- Money owed for draws, below zero where a reversal took it back. Append-only; the key makes a posting that is told twice count once.
CREATE TABLE reserve_draw_posting (
    entry_id uuid CONSTRAINT reserve_draw_posting_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    reserve_draw_id uuid NOT NULL,
    amount_minor bigint NOT NULL,
    record_time timestamptz NOT NULL
);
CREATE INDEX reserve_draw_posting_draw ON reserve_draw_posting (reserve_draw_id);

-- Periods that were decided. Append-only; none overlaps another of its programme (checked under the programme's lock).
CREATE TABLE decided_period (
    programme_id uuid NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,          -- first instant after it
    next_period_end timestamptz NOT NULL,
    actor text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT decided_period_pkey PRIMARY KEY (programme_id, period_start),
    CONSTRAINT decided_period_programme FOREIGN KEY (programme_id) REFERENCES programme,
    CONSTRAINT decided_period_order CHECK (period_start < period_end AND period_end < next_period_end)
);

-- Values and costs that decisions compared with: kept once for all decisions that share them. Append-only.
CREATE TABLE cohort_sample (
    programme_id uuid NOT NULL,
    cohort_id text NOT NULL,                  -- SHA-256 of the results
    results json NOT NULL,
    CONSTRAINT cohort_sample_pkey PRIMARY KEY (programme_id, cohort_id)
);

-- Decisions with everything they were made from. Append-only: what happens to one afterwards is in decision_progress.
CREATE TABLE decision (
    decision_id uuid CONSTRAINT decision_pkey PRIMARY KEY,
    programme_id uuid NOT NULL,
    member_id uuid NOT NULL,
    period_start timestamptz NOT NULL,
    action text NOT NULL,
    policy_version integer NOT NULL,
    value_model_version integer NOT NULL,
    input_hash text NOT NULL,                 -- SHA-256 of the inputs
    inputs json NOT NULL,                     -- json, not jsonb: the very text that was hashed
    outcome json NOT NULL,                    -- the very text that a replay must give
    currency_code text NOT NULL,
    actor text NOT NULL,                      -- who ran it
    create_time timestamptz NOT NULL,
    CONSTRAINT decision_member_period UNIQUE (programme_id, member_id, period_start),
    CONSTRAINT decision_period FOREIGN KEY (programme_id, period_start) REFERENCES decided_period,
    CONSTRAINT decision_action CHECK (action IN ('INCREASE', 'MAINTAIN', 'REVIEW', 'REDUCE'))
);
CREATE INDEX decision_programme ON decision (programme_id, decision_id);

-- How far a decision is, and what the other services answered.
CREATE TABLE decision_progress (
    decision_id uuid CONSTRAINT decision_progress_pkey PRIMARY KEY,
    state text NOT NULL,
    approved_by text,                         -- `policy` when automatic; NULL before
    approve_reason text,                      -- why, as the approver said it; NULL when automatic or before
    profile_result text,                      -- what the registry answered to the value profile; NULL before
    tier_result text,                         -- the same for the tier proposal
    limit_result text,                        -- what the budget answered to the limit
    update_time timestamptz NOT NULL,
    CONSTRAINT decision_progress_decision FOREIGN KEY (decision_id) REFERENCES decision,
    CONSTRAINT decision_progress_state CHECK (state IN ('PROPOSED', 'APPLYING', 'APPLIED')),
    CONSTRAINT decision_progress_approved CHECK ((state = 'PROPOSED') = (approved_by IS NULL))
);
