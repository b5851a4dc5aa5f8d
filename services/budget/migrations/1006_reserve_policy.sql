-- Who may approve draws on a plan's reserve, from the second version on; the first follows from the plan. Append-only.
CREATE TABLE reserve_policy (
    plan_id uuid NOT NULL CONSTRAINT reserve_policy_plan REFERENCES plan,
    version bigint NOT NULL CONSTRAINT reserve_policy_version CHECK (version > 1), -- dense in the plan
    programme_id uuid NOT NULL,
    automatic_limit bigint CONSTRAINT reserve_policy_automatic CHECK (automatic_limit >= 0), -- minor units; NULL: none is automatic
    required_evidence text[] NOT NULL,              -- figures that an automatic approval needs; empty: any one
    one_person_limit bigint CONSTRAINT reserve_policy_one_person CHECK (one_person_limit >= 0), -- NULL: each draw needs one person
    max_share_bp integer NOT NULL CONSTRAINT reserve_policy_share CHECK (max_share_bp BETWEEN 1 AND 10000), -- of the allocation, per draw
    output_cool_down_hours integer NOT NULL CONSTRAINT reserve_policy_output CHECK (output_cool_down_hours >= 0),
    member_cool_down_hours integer NOT NULL CONSTRAINT reserve_policy_member CHECK (member_cool_down_hours >= 0),
    report_within_hours integer NOT NULL CONSTRAINT reserve_policy_report CHECK (report_within_hours > 0),
    reason text NOT NULL,
    set_by text NOT NULL,
    create_time timestamptz NOT NULL,
    CONSTRAINT reserve_policy_pkey PRIMARY KEY (plan_id, version),
    CONSTRAINT reserve_policy_order CHECK (automatic_limit <= one_person_limit)
);
CREATE TRIGGER reserve_policy_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reserve_policy
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Who approved a draw. Append-only: one person counts once.
CREATE TABLE reserve_draw_approval (
    reserve_draw_id uuid NOT NULL CONSTRAINT reserve_draw_approval_draw REFERENCES reserve_draw,
    ordinal smallint NOT NULL CONSTRAINT reserve_draw_approval_ordinal CHECK (ordinal BETWEEN 0 AND 1),
    approved_by text NOT NULL,
    reason text NOT NULL,
    approve_time timestamptz NOT NULL,
    CONSTRAINT reserve_draw_approval_pkey PRIMARY KEY (reserve_draw_id, ordinal),
    CONSTRAINT reserve_draw_approval_once UNIQUE (reserve_draw_id, approved_by)
);
CREATE TRIGGER reserve_draw_approval_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reserve_draw_approval
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a draw brought, with its top-ups. Append-only.
CREATE TABLE reserve_draw_outcome (
    reserve_draw_id uuid CONSTRAINT reserve_draw_outcome_pkey PRIMARY KEY CONSTRAINT reserve_draw_outcome_draw REFERENCES reserve_draw,
    value bigint NOT NULL CONSTRAINT reserve_draw_outcome_value CHECK (value >= 0), -- minor units
    figures jsonb NOT NULL,                         -- [{"name": …, "value": …}]
    note text NOT NULL,
    reported_by text NOT NULL,
    report_time timestamptz NOT NULL
);
CREATE TRIGGER reserve_draw_outcome_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON reserve_draw_outcome
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
