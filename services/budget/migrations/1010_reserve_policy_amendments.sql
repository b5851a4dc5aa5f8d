-- A change of who may approve draws is an amendment: one person proposes it, others approve it.
ALTER TABLE amendment
    DROP CONSTRAINT amendment_kind,
    ADD CONSTRAINT amendment_kind CHECK (kind IN ('CHANGE', 'TRANSFER', 'CLOSE', 'RESERVE_POLICY'));

-- What an amendment of kind RESERVE_POLICY proposes, as in `reserve_policy`. Append-only.
CREATE TABLE amendment_reserve_terms (
    amendment_id uuid CONSTRAINT amendment_reserve_terms_pkey PRIMARY KEY
        CONSTRAINT amendment_reserve_terms_amendment REFERENCES amendment,
    automatic_limit bigint CONSTRAINT amendment_reserve_terms_automatic CHECK (automatic_limit >= 0), -- minor units
    required_evidence text[] NOT NULL,
    one_person_limit bigint CONSTRAINT amendment_reserve_terms_one_person CHECK (one_person_limit >= 0),
    max_share_bp integer NOT NULL CONSTRAINT amendment_reserve_terms_share CHECK (max_share_bp BETWEEN 1 AND 10000),
    output_cool_down_hours integer NOT NULL CONSTRAINT amendment_reserve_terms_output CHECK (output_cool_down_hours >= 0),
    member_cool_down_hours integer NOT NULL CONSTRAINT amendment_reserve_terms_member CHECK (member_cool_down_hours >= 0),
    report_within_hours integer NOT NULL CONSTRAINT amendment_reserve_terms_report CHECK (report_within_hours > 0),
    CONSTRAINT amendment_reserve_terms_order CHECK (automatic_limit <= one_person_limit)
);
CREATE TRIGGER amendment_reserve_terms_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON amendment_reserve_terms
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE reserve_policy
    ADD COLUMN amendment_id uuid CONSTRAINT reserve_policy_amendment REFERENCES amendment; -- NULL: set before a change was approved
